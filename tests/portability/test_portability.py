"""The proof: each Worker does the same here and on the platform's own Python with its own SDK.

One Node process for each version of Pyodide runs all scenarios (runner.mjs); then each is run here
and compared: response, logs, calls of bindings, decisions about messages, exceptions.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import pytest

from tests.portability.here import run
from tests.portability.node import node_for
from tests.portability.scenarios import HANDLERS, HERE, NOW_MS, ROOT, load_scenarios

pytestmark = pytest.mark.anyio

PYTHONS = {"pyodide-0.28.2": "3.13", "pyodide-314": "3.14"}
SCENARIOS = load_scenarios()
OF_THE_PROBES = 8
"""Each so many-th scenario of the probes runs at the other levels too."""
PROBES = [each for each in SCENARIOS if "probes" in each["main"]]


@pytest.fixture(scope="session", params=PYTHONS)
def platform(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What every scenario did on the platform's side, by name."""
    node = node_for(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    job = {
        "pyodide": request.param,
        "root": str(ROOT),
        "now_ms": NOW_MS,
        "sdk": dict(sdk_files()),
        "scenarios": SCENARIOS,
    }
    (folder / "job.json").write_text(json.dumps(job))
    finished = subprocess.run(
        [node, "runner.mjs", folder / "job.json", folder / "results.json"],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    answer = json.loads((folder / "results.json").read_text())
    assert answer["python"].startswith(PYTHONS[request.param])
    return {each["name"]: each for each in answer["results"]}


def sdk_files() -> Iterator[tuple[str, str]]:
    """The installed files of Cloudflare's SDK: name in the package, path."""
    try:
        found = files("workers-runtime-sdk") or []
    except PackageNotFoundError:
        pytest.fail("workers-runtime-sdk is not installed (make setup)")
    for each in found:
        if each.parts[0] == "workers" and each.suffix in {".py", ".js"}:
            yield str(each), str(each.locate())


def comparable(result: dict[str, Any]) -> dict[str, Any]:
    """The result as JSON would have it, without what edgesim adds to the platform's text."""
    text = re.sub(r" \(fetch returned \w+\)", "", json.dumps(result))
    return dict(json.loads(text))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each["name"])
async def test_the_same_on_both_sides(scenario, platform):
    """What the Worker answers, logs, asks of its bindings and raises is equal."""
    there = platform[scenario["name"]]
    here = await run(scenario, "inline")
    assert comparable(here) == comparable(there)
    assert here["outcome"] == scenario["outcome"] or scenario["outcome"] is None


@pytest.mark.parametrize("level", ["process", "warm"])
@pytest.mark.parametrize("scenario", PROBES[::OF_THE_PROBES], ids=lambda each: each["name"])
async def test_the_same_at_every_level(scenario, level):
    """The other levels do what the inline level does, which is what is compared above."""
    assert await run(scenario, level) == await run(scenario, "inline")


def test_there_is_enough_to_compare():
    """Every handler kind, every probe, and each Worker of this repository has its scenarios."""
    assert len(SCENARIOS) >= 60
    assert {each["handler"] for each in SCENARIOS} > HANDLERS
    mains = {Path(each["main"]).parent for each in SCENARIOS}
    folders = [each.parent for each in (HERE / "probes").glob("*/wrangler.toml")]
    folders += [each.parent for each in ROOT.glob("workers/*/wrangler.*")]
    assert {each.relative_to(ROOT) for each in folders} <= mains
