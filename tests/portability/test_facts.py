"""What ``edgesim check`` believes of the platform, asked of the platform's own tools."""

import json
from typing import Any

from edgesim.check.modules import ABSENT, NOT_EVERYWHERE
from edgesim.check.wrangler_keys import KEYS
from tests.portability.node import MODULES, node_for
from tests.portability.there import PYTHONS, on_the_platform


def test_wrangler_keys():
    """The tables that are checked have the keys of wrangler's own schema."""
    node_for("wrangler")
    schema = json.loads((MODULES / "wrangler" / "config-schema.json").read_text())
    definitions = schema["definitions"]

    def resolved(part: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in part:
            part = definitions[part["$ref"].rpartition("/")[2]]
        return resolved(part["items"]) if "items" in part else part

    for path, keys in KEYS.items():
        table = definitions["RawConfig"]
        for name in filter(None, path.split(".")):
            table = resolved(resolved(table)["properties"][name])
        assert set(resolved(table)["properties"]) == keys, path


def test_modules_that_are_absent():
    """What is called absent is so in every Python, what is called unsure in at least one."""
    missing = [set(on_the_platform(package)["missing"]) for package in PYTHONS]
    assert set.intersection(*missing) - {"idlelib"} == ABSENT - {"idlelib"}
    assert set.union(*missing) - ABSENT == NOT_EVERYWHERE
