"""Pauses between the attempts of an operation that fails."""

import random

from edgesim.backoff import Backoff


def test_a_pause_doubles_up_to_the_longest():
    """Each pause is twice the one before; from the maximum on they stay."""
    backoff = Backoff(0.5, 3.0)
    assert backoff.pause == 0
    assert [backoff.failed() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert (backoff.failures, backoff.pause) == (5, 3.0)


def test_thousands_of_failures_are_no_error():
    """A store that is away for days is still asked."""
    backoff = Backoff()
    assert {backoff.failed() for _ in range(2_000)} >= {0.1, 10.0}
    assert backoff.pause == 10.0


def test_a_success_begins_anew():
    """After a success the next failure has the first pause."""
    backoff = Backoff()
    backoff.failed()
    backoff.failed()
    backoff.reset()
    assert (backoff.failures, backoff.pause) == (0, 0)
    assert backoff.failed() == 0.1


def test_random_pauses_stay_near_the_exact_ones():
    """With a source of randomness a pause differs by up to a quarter; equal seeds, equal pauses."""
    one, same, other = (Backoff(random=random.Random(seed)) for seed in (1, 1, 2))
    pauses = [one.failed() for _ in range(20)]
    exact = Backoff()
    for pause in pauses:
        assert 0.75 <= pause / exact.failed() <= 1.25
    assert pauses == [same.failed() for _ in range(20)]
    assert pauses != [other.failed() for _ in range(20)]
