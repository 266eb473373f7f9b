"""Seeds of random sends and faults on a project of streams: every row is in each sink once."""

from collections.abc import Iterator

import pytest

from tests.simulation.run import Simulation, open_simulation
from tests.simulation.scenarios import SCENARIOS

SEEDS = range(8)
STREAMS = SCENARIOS["streams"]


@pytest.fixture(scope="module")
def simulation() -> Iterator[Simulation]:
    with open_simulation() as opened:
        yield opened


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_of_streams_is_clean(simulation, seed):
    """Kills, power cuts, lost replies and damaged disks: no checker reports a violation."""
    report = simulation.run(STREAMS, seed)
    assert [f"{each.checker}: {each.problem}" for each in report.violations] == []
    assert report.drained


def test_the_checker_notices(simulation, monkeypatch):
    """A stream that acknowledges records and drops some of them is reported."""
    method = "edgesim.pipelines.streams.window.StreamWindow.lines"
    monkeypatch.setattr(method, lambda _: iter(()))
    report = simulation.run(STREAMS, 0)
    assert any("accepted rows are in no file" in each.problem for each in report.violations)
