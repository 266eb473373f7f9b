"""The proof: each Worker does the same here and on the platform's own Python with its own SDK.

One Node process for each version of Pyodide runs all scenarios (runner.mjs); then each is run here
and compared: response, logs, calls of bindings, decisions about messages, exceptions.
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
"""Each so many-th scenario of the probes runs at the other levels too."""
PROBES = [each for each in SCENARIOS if "probes" in each["main"]]


@pytest.fixture(scope="session", params=PYTHONS)
def platform(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What every scenario did on the platform's side, by name."""
    return {each["name"]: each for each in on_the_platform(request.param)["results"]}


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
