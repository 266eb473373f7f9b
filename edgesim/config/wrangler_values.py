"""Values of wrangler files that JavaScript treats differently: null, TOML dates, empty routes.

Source: wrangler 4.164's validation, which tests/portability runs on the same files.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from edgesim.config.wrangler_keys import REMOVED
from edgesim.errors import ConfigError

TAKE_NULL = frozenset({"dev", "env", "limits", "tail_consumers", "triggers"})
"""Keys for which null means that the key is absent."""
_PIPELINE_KEYS = ("stream", "pipeline")
_CHECKED = frozenset(
    {
        *(
            "analytics_engine_datasets",
            "compatibility_date",
            "compatibility_flags",
            "kv_namespaces",
            "limits",
            "main",
            "name",
            "observability",
        ),
        *("pipelines", "queues", "r2_buckets", "route", "routes", "secrets", "services"),
        *("tail_consumers", "triggers", "vars", "workers_dev"),
    }
)


def normalised(file: Path, table: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The table without ineffective keys, and warnings; ConfigError for what wrangler refuses."""
    warnings = []
    for key, cure in REMOVED.items():
        if key in table:
            raise ConfigError(file, key, f"is no longer supported; {cure}")
    table = {
        key: value for key, value in table.items() if value is not None or key not in TAKE_NULL
    }
    for index, pipeline in enumerate(_tables(table.get("pipelines"))):
        named = [key for key in _PIPELINE_KEYS if pipeline.get(key)]
        for key in _PIPELINE_KEYS:
            if named and pipeline.get(key, "") is None:
                del pipeline[key]
        if named == ["pipeline"]:
            warnings.append(f"pipelines[{index}].pipeline is deprecated; rename it to `stream`")
    if table.get("route") == "":
        del table["route"]
        warnings.append("route is an empty string, which is ignored; take it out")
    for key in sorted(_CHECKED & table.keys()):
        _refuse_null(file, table[key], key)
    if isinstance(variables := table.get("vars"), dict):
        table["vars"] = {key: _variable(file, key, value) for key, value in variables.items()}
    return table, warnings


def _tables(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _refuse_null(file: Path, value: Any, key: str) -> None:
    if value is None:
        raise ConfigError(file, key, "is null, which wrangler refuses; take the key out")
    if isinstance(value, list):
        for index, each in enumerate(value):
            _refuse_null(file, each, f"{key}[{index}]")
    elif isinstance(value, dict) and key != "vars" and not key.endswith(".props"):
        for name, each in value.items():
            _refuse_null(file, each, f"{key}.{name}")


def _variable(file: Path, name: str, value: Any) -> Any:
    if isinstance(value, date | time):
        problem = f'is a TOML date, which no variable can be; quote it: "{_text(value)}"'
        raise ConfigError(file, f"vars.{name}", problem)
    return _plain(value)


def _plain(value: Any) -> Any:
    """The value in JSON types; dates as text in the form of wrangler's TOML parser."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return _text(value) if isinstance(value, date | time) else value


def _text(value: date | time) -> str:
    if not isinstance(value, datetime | time):
        return value.isoformat()
    text = value.isoformat(timespec="milliseconds")
    utc = isinstance(value, datetime) and value.utcoffset() == timedelta(0)
    return text.removesuffix("+00:00") + "Z" if utc else text
