"""The mutations fit the product as it is, and some of them are tried; `make mutants` tries all."""

import pytest

from tests.mutants.mutations import MUTATIONS
from tests.mutants.run import check, notices

QUICK = [
    "pipeline log not flushed before the acknowledgement",
    "outbox not replayed at start",
    "notification in a transaction of its own",
    "pipeline object written again after a crash without looking",
    "one retry too few",
]
"""By name: those that the simulation missed before it had a disk and aimed kills."""


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: each.name)
def test_a_mutation_can_be_applied(mutation):
    """The text that it changes is in the product, once."""
    check(mutation)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", QUICK)
def test_a_mutation_is_noticed(name):
    """What is known to notice it does."""
    [mutation] = [each for each in MUTATIONS if each.name == name]
    assert notices(mutation, mutation.caught_by), "look for another seed: make mutants"
