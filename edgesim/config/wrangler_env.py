"""``env.<name>`` of a wrangler file: the same Worker deployed as ``<name>-<env>``.

Source: wrangler's validation.  An environment inherits all top-level keys except bindings and
variables; each of these that it does not repeat causes a warning.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgesim.config.wrangler_values import TAKE_NULL
from edgesim.errors import ConfigError

_NOT_INHERITED = {
    "ai",
    "analytics_engine_datasets",
    "browser",
    "d1_databases",
    "define",
    "dispatch_namespaces",
    "durable_objects",
    "hyperdrive",
    "images",
    "kv_namespaces",
    "mtls_certificates",
    "pipelines",
    "queues",
    "r2_buckets",
    "ratelimits",
    "secrets",
    "send_email",
    "services",
    "streaming_tail_consumers",
    "tail_consumers",
    "unsafe",
    "vars",
    "vectorize",
    "version_metadata",
    "workflows",
}
_ROUTES = ("route", "routes")


def in_environment(
    file: Path, table: dict[str, Any], environment: str | None
) -> tuple[dict[str, Any], list[str]]:
    """The file's table for the environment (None: the top level), and warnings.

    ConfigError if the file has environments, but not this one.
    """
    top = {key: value for key, value in table.items() if key != "env"}
    if environment is None:
        return top, []
    sections = table.get("env") or {}
    name = {"name": f"{top['name']}-{environment}"} if "name" in top else {}
    if not isinstance(sections, dict) or not all(isinstance(e, dict) for e in sections.values()):
        raise ConfigError(file, "env", "must be a table with a table for each environment")
    if environment not in sections:
        if sections:
            known = ", ".join(sections)
            raise ConfigError(file, "env", f"there is no env.{environment}; known: {known}")
        return top | name, [f"the file has no env.{environment}: its top level is used"]
    section = {
        key: value
        for key, value in sections[environment].items()
        if value is not None or key not in TAKE_NULL
    }
    if any(key in section for key in _ROUTES):
        top = {key: value for key, value in top.items() if key not in _ROUTES}
    lost = sorted(key for key in _NOT_INHERITED & top.keys() if key not in section)
    inherited = {key: value for key, value in top.items() if key not in _NOT_INHERITED}
    warnings = [
        f"{key} is at the top level but not in env.{environment}, which does not inherit it"
        for key in lost
    ]
    return inherited | name | section, warnings
