"""The compact list of configuration keys, generated from wrangler's own ``config-schema.json``.

    python -m tests.portability.wrangler_schema > edgesim/config/wrangler_keys.json

The list maps the path of a table to its keys.  ``*`` stands for a key that the user chooses; arrays
are left out of paths.  ``env.*`` has the keys of an environment, whose tables are those of the top.
Tables below ``previews`` are not listed.
"""

import json
import sys
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent / "node_modules" / "wrangler"
LISTED = Path(__file__).parents[2] / "edgesim" / "config" / "wrangler_keys.json"


def compact() -> dict[str, Any]:
    """Return the list and the version of wrangler that it is generated from."""
    schema = json.loads((PACKAGE / "config-schema.json").read_text("utf-8"))
    version = json.loads((PACKAGE / "package.json").read_text("utf-8"))["version"]
    tables: dict[str, set[str]] = {}
    _Walk(schema["definitions"], tables).table("RawConfig", "")
    return {
        "wrangler": version,
        "tables": {path: sorted(keys) for path, keys in sorted(tables.items())},
    }


class _Walk:
    def __init__(self, definitions: dict[str, Any], tables: dict[str, set[str]]) -> None:
        self.definitions = definitions
        self.tables = tables

    def table(self, name: str, path: str) -> None:
        self.node(self.definitions[name], path, ())

    def node(self, node: Any, path: str, seen: tuple[str, ...]) -> None:
        if "$ref" in node:
            name = node["$ref"].removeprefix("#/definitions/")
            if name in seen or name == "Json":
                return
            self.node(self.definitions[name], path, (*seen, name))
        for part in (*node.get("anyOf", ()), *node.get("allOf", ()), *node.get("oneOf", ())):
            self.node(part, path, seen)
        if isinstance(node.get("items"), dict):
            self.node(node["items"], path, seen)
        if "properties" in node:
            self.tables.setdefault(path, set()).update(node["properties"])
            for key, value in node["properties"].items():
                if path.partition(".")[0] not in {"env", "previews"}:
                    self.node(value, f"{path}.{key}" if path else key, seen)
        free = node.get("additionalProperties")
        if free is True or isinstance(free, dict):
            self.tables.setdefault(path, set()).add("*")
            if isinstance(free, dict):
                self.node(free, f"{path}.*" if path else "*", seen)


if __name__ == "__main__":
    text = json.dumps(compact(), indent=1).replace('\n   "', ' "').replace("\n  ]", " ]")
    sys.stdout.write(text + "\n")
