"""Runs every scenario on the platform's side: one Node process for each Python."""

import json
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import pytest

from tests.portability.node import node_for
from tests.portability.scenarios import HERE, NOW_MS, ROOT, load_scenarios

PYTHONS = {"pyodide-0.28.2": "3.13", "pyodide-314": "3.14"}
"""npm package -> version of Python."""


@cache
def on_the_platform(package: str) -> dict[str, Any]:
    """Return the ``results`` of every scenario, and which library modules there are."""
    node = node_for(package)
    job = {
        "pyodide": package,
        "root": str(ROOT),
        "now_ms": NOW_MS,
        "sdk": dict(_sdk_files()),
        "scenarios": load_scenarios(),
    }
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder, "job.json"), Path(folder, "results.json")
        given.write_text(json.dumps(job))
        finished = subprocess.run(
            [node, "runner.mjs", given, found],
            cwd=HERE,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr[-4000:]
        answer: dict[str, Any] = json.loads(found.read_text())
    assert answer["python"].startswith(PYTHONS[package])
    return answer


def _sdk_files() -> Iterator[tuple[str, str]]:
    """Yield (name in the package, path) of the installed files of Cloudflare's SDK."""
    try:
        found = files("workers-runtime-sdk") or []
    except PackageNotFoundError:
        pytest.fail("workers-runtime-sdk is not installed (make setup)")
    for each in found:
        if each.parts[0] == "workers" and each.suffix in {".py", ".js"}:
            yield str(each), str(each.locate())
