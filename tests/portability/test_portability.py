"""Each Worker behaves the same on edgesim and on the platform's own Python with its own SDK.

One Node process for each version of Pyodide runs all scenarios (runner.mjs); then edgesim does.
Response, logs, binding calls, decisions about messages, and exceptions are compared.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.portability.here import run
from tests.portability.scenarios import HANDLERS, HERE, ROOT, load_scenarios
from tests.portability.there import PYTHONS, on_the_platform

pytestmark = pytest.mark.anyio

SCENARIOS = load_scenarios()
OF_THE_PROBES = 8
"""Every eighth scenario of the probes also runs at the other levels."""
PROBES = [each for each in SCENARIOS if "probes" in each["main"]]


@pytest.fixture(scope="session", params=PYTHONS)
def platform(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Results of every scenario on the platform's side, by name."""
    return {each["name"]: each for each in on_the_platform(request.param)["results"]}


def comparable(result: dict[str, Any]) -> dict[str, Any]:
    """Return the result as JSON, without the text that edgesim adds to an error message."""
    text = re.sub(r" \(fetch returned \w+\)", "", json.dumps(result))
    return dict(json.loads(text))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each["name"])
async def test_the_same_on_both_sides(scenario, platform):
    """Responses, logs, binding calls and exceptions of a Worker are equal."""
    there = platform[scenario["name"]]
    here = await run(scenario, "inline")
    assert comparable(here) == comparable(there)
    assert here["outcome"] == scenario["outcome"] or scenario["outcome"] is None


@pytest.mark.parametrize("level", ["process", "warm"])
@pytest.mark.parametrize("scenario", PROBES[::OF_THE_PROBES], ids=lambda each: each["name"])
async def test_the_same_at_every_level(scenario, level):
    """The other levels behave as the inline level, which is compared with the platform above."""
    assert await run(scenario, level) == await run(scenario, "inline")


def test_there_is_enough_to_compare():
    """Every handler kind, every probe, and each Worker of this repository has its scenarios."""
    assert len(SCENARIOS) >= 60
    assert {each["handler"] for each in SCENARIOS} > HANDLERS
    mains = {Path(each["main"]).parent for each in SCENARIOS}
    folders = [each.parent for each in (HERE / "probes").glob("*/wrangler.toml")]
    folders += [each.parent for each in ROOT.glob("workers/*/wrangler.*")]
    assert {each.relative_to(ROOT) for each in folders} <= mains
