"""The mutations can be applied, and a few of them are detected; `make mutants` tries all."""

import pytest

from tests.mutants.mutations import MUTATIONS
from tests.mutants.run import check, notices

QUICK = [
    "pipeline log not flushed before the acknowledgement",
    "outbox not replayed at start",
    "damage of an object not said",
]
"""Names: one for power cuts, one for aimed kills, one for damage; each needs an engine."""


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: each.name)
def test_a_mutation_can_be_applied(mutation):
    """The text that it changes occurs exactly once in the product."""
    check(mutation)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", QUICK)
def test_a_mutation_is_noticed(name):
    """The seed or test in ``caught_by`` detects it."""
    [mutation] = [each for each in MUTATIONS if each.name == name]
    assert notices(mutation, mutation.caught_by), "look for another seed: make mutants"
