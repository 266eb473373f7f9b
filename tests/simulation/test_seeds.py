"""A few seeds of the simulation, and those that once found a fault; `make sim` runs many."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulation import adversity
from tests.simulation.run import Simulation, open_simulation
from tests.simulation.scenarios import SCENARIOS
from tests.simulation.tally import EFFECTS, RULES, SEEDS_TO_JUDGE, Tally, kind_of

SEEDS = range(5)
EVENTS = SCENARIOS["events"]
FOUND = Path(__file__).parent / "regressions"
REGRESSIONS = {
    # A lease whose reply was lost kept its messages for ever if the queue had no others.
    "a-lease-that-is-nobodys": 1002,
    # The same with several such leases: only the first one's messages were delivered again.
    "several-leases-that-are-nobodys": 2021,
    # A move whose reply was lost is repeated; messages it no longer finds are not moved twice.
    "a-move-twice": 400,
    # A released lease may still be acknowledged until another consumer leases the message.
    "an-ack-after-a-release": 224,
    # A message that was stored without a reply was not delivered until another one was sent.
    "a-send-without-an-answer": 355,
    # A folder that one start created and could not flush was never flushed by the next start.
    "a-folder-that-nobody-flushed": 3,
}
"""Regression folder -> seed of order and chance."""


@pytest.fixture(scope="module")
def simulation() -> Iterator[Simulation]:
    with open_simulation() as opened:
        yield opened


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_is_clean(simulation, seed):
    """Random traffic, random faults, then no faults: no checker reports a violation."""
    _check(simulation.run(EVENTS, seed), lambda: simulation.keep(EVENTS, seed))


@pytest.mark.parametrize("name", REGRESSIONS)
def test_what_was_found_stays_fixed(simulation, name):
    """A case that failed once passes."""
    _check(simulation.again(FOUND / name, REGRESSIONS[name]), lambda: name)


def test_each_fault_is_on_the_menu():
    """The generator's rules cover every fault that a summary of 300 seeds must have seen."""
    rules = [rule for seed in range(300) for rule in adversity.generate(seed, zygotes=True)]
    assert {kind_of(rule) for rule in rules} == RULES | {"zygote-death"}


def test_a_fault_that_never_took_effect_is_missed():
    """The tally reports it once enough seeds have run."""
    tally = Tally()
    wanted = EVENTS.effects
    assert wanted == RULES | EFFECTS
    assert not tally.missing(SEEDS_TO_JUDGE - 1, wanted, zygotes=False)
    assert tally.missing(SEEDS_TO_JUDGE, wanted, zygotes=False) == wanted
    assert "zygote-death" in tally.missing(SEEDS_TO_JUDGE, wanted, zygotes=True)


def test_every_case_is_run():
    """Every kept case is run by a test."""
    assert {kept.name for kept in FOUND.iterdir()} == REGRESSIONS.keys()


def _check(report, how):
    problems = [f"{each.checker}: {each.problem}" for each in report.violations]
    assert report.drained, f"not drained; {how()}"
    assert not problems, f"{problems}; {how()}"
    assert report.checked
