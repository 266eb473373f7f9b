"""The keys that wrangler accepts in its files, and detection of unknown keys.

``wrangler_keys.json`` is generated from the schema that wrangler ships; tests/portability generates
it, and compares the two.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import msgspec

_LISTED = msgspec.json.decode(files("edgesim.config").joinpath("wrangler_keys.json").read_bytes())
WRANGLER: str = _LISTED["wrangler"]
"""Version of wrangler that the keys come from."""
KEYS: dict[str, frozenset[str]] = {
    path: frozenset(keys) for path, keys in _LISTED["tables"].items()
}
"""Keys by the path of their table; ``*`` stands for any user-defined key."""
_PATH = re.compile(r"((?:env\.[^.]+(?=\.))?)\.?(.*)", re.DOTALL)
REMOVED = {
    "legacy_env": "take it out: every environment is a Worker of its own, `<name>-<env>`",
    "node_compat": "use the compatibility flag `nodejs_compat`",
}
"""Keys of older versions that wrangler 4 refuses, each with the fix."""


class UnknownKey(msgspec.Struct, frozen=True):
    """A key that wrangler does not know; ``near`` is the most similar known key, if any."""

    path: str
    key: str
    near: str | None

    @property
    def problem(self) -> str:
        """One sentence that names the key and its table."""
        table, name = _PATH.fullmatch(self.path).groups()  # type: ignore[union-attr]
        return f"Cloudflare knows no key `{name}`" + (f" in {table}" if table else "")

    def __str__(self) -> str:
        return self.problem + (f"; did you mean `{self.near}`?" if self.near else "")


_NO_BINDINGS = frozenset(
    {
        *("queues", "r2_buckets", "pipelines", "services", "tail_consumers", "vars", "secrets"),
        *("kv_namespaces", "streaming_tail_consumers", "triggers", "route", "routes"),
        "analytics_engine_datasets",
    }
)
"""Keys of bindings that edgesim supports, and of tables without bindings."""


def absent_bindings(table: dict[str, Any]) -> dict[str, str]:
    """Bindings that edgesim does not support: name on env to the key of its table."""
    found = {}
    for key, value in table.items():
        if key in _NO_BINDINGS or key not in KEYS[""]:
            continue
        inner = value["bindings"] if isinstance(value, dict) and "bindings" in value else value
        for each in inner if isinstance(inner, list) else [inner]:
            if isinstance(each, dict):
                name = each.get("binding", each.get("name") if inner is not value else None)
                if isinstance(name, str):
                    found[name] = key
    return found


def unknown_keys(table: dict[str, Any]) -> list[UnknownKey]:
    """The unknown keys of a whole file, including its environments."""
    return list(_unknown(table, "", ""))


def _unknown(table: Any, listed: str, shown: str) -> Iterator[UnknownKey]:
    """Yield unknown keys; ``listed`` is the table's path in KEYS, ``shown`` that in the file."""
    if isinstance(table, list):
        for index, each in enumerate(table):
            yield from _unknown(each, listed, f"{shown}[{index}]")
    elif isinstance(table, dict) and listed in KEYS:
        known = KEYS[listed]
        for key, value in table.items():
            path = f"{shown}.{key}" if shown else key
            if key in known:
                # The tables of an environment have the keys of the top-level tables.
                outer = "" if listed == "env.*" else listed
                yield from _unknown(value, f"{outer}.{key}" if outer else key, path)
            elif "*" in known:
                yield from _unknown(value, f"{listed}.*", path)
            else:
                near = difflib.get_close_matches(key, known, 1)
                yield UnknownKey(path, key, near[0] if near else None)
