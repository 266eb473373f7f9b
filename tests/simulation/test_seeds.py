"""A few seeds of the simulation, and those that once found something; `make sim` runs many."""

from collections.abc import Iterator

import pytest

from tests.simulation.run import Simulation, open_simulation

SEEDS = range(5)
REGRESSIONS = {
    # A lease whose answer was lost kept its messages for ever, once the queue had nothing else.
    "a lease that is nobody's comes back": 1002,
    # ... and where there were several such leases, only the first one's messages came back.
    "every such lease comes back": 2021,
    # A move whose answer was lost is done again; what it then does not find has not moved twice.
    "a move is done once": 400,
    # A lease that was given back may still be acknowledged, until somebody takes the message anew.
    "a lease counts until the next": 224,
    # A message that was stored but not answered for lay there until another one came.
    "a send without an answer wakes the consumer": 355,
}


@pytest.fixture(scope="module")
def simulation() -> Iterator[Simulation]:
    with open_simulation() as opened:
        yield opened


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_is_clean(simulation, seed):
    """Random traffic, random faults, then calm: every checker is content."""
    _check(simulation, seed)


@pytest.mark.parametrize("name", REGRESSIONS)
def test_what_was_found_stays_fixed(simulation, name):
    """A seed that failed once."""
    _check(simulation, REGRESSIONS[name])


def _check(simulation, seed):
    report = simulation.run(seed)
    problems = [f"{each.checker}: {each.problem}" for each in report.violations]
    assert report.drained, f"not drained; repeat with: {simulation.keep(seed)}"
    assert not problems, f"{problems}; repeat with: {simulation.keep(seed)}"
    assert report.checked
