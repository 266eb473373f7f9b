"""What ``edgesim check`` believes of the platform, asked of the platform's own tools."""

import json
import subprocess
from typing import Any

import pytest

from edgesim.check.modules import ABSENT, NOT_EVERYWHERE
from edgesim.check.wrangler_keys import KEYS
from tests.portability.node import HERE, MODULES, node_for
from tests.portability.test_portability import PYTHONS


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


@pytest.fixture(scope="module")
def missing() -> list[set[str]]:
    """Modules of the standard library that cannot be imported, for each Python."""
    found = []
    for package in PYTHONS:
        finished = subprocess.run(
            [node_for(package), "library.mjs", package],
            cwd=HERE,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        found.append(set(json.loads(finished.stdout)))
    return found


def test_modules_that_are_absent(missing):
    """What is called absent is so in every Python, what is called unsure in at least one."""
    assert set.intersection(*missing) - {"idlelib"} == ABSENT - {"idlelib"}
    assert set.union(*missing) - ABSENT == NOT_EVERYWHERE
