"""Records are compared and counted by digests of 8 bytes each."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from edgesim.replay.digests import Digests, digest_of

records = st.lists(st.fixed_dictionaries({"a": st.integers(0, 9), "b": st.sampled_from("xyz")}))


def _digests(found):
    digests = Digests()
    digests.add(found)
    return digests


@given(records, records)
def test_what_is_beyond_is_counted_as_counters_do(ours, theirs):
    """The difference counts duplicates, as a difference of Counters does."""
    counters = [Counter((each["a"], each["b"]) for each in found) for found in (ours, theirs)]
    assert _digests(ours).beyond(_digests(theirs)) == (counters[0] - counters[1]).total()
    assert len(_digests(ours)) == len(ours)


def test_the_order_of_keys_makes_no_difference():
    """The order of a record's keys does not change its digest."""
    assert not _digests([{"a": 1, "b": 2}]).beyond(_digests([{"b": 2, "a": 1}]))


def test_what_is_absent_elsewhere_is_told_by_its_digest():
    """The digests of absent records are a set; duplicates do not matter."""
    assert _digests(["a", "b", "b", "c"]).absent_from(_digests(["c", "c", "a"])) == {digest_of("b")}
