"""Notification rules of a bucket that exclude or contradict each other."""

from pathlib import Path

import msgspec
import pytest

from edgesim.config.notifications import NotificationRule as Rule
from edgesim.config.notifications import check_notifications
from edgesim.errors import ConfigError

FILE = Path("project/edgesim.toml")


def check(*rules: Rule) -> None:
    """Check the rules, all for one bucket."""
    check_notifications(FILE, "events", rules)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Rule("a"), Rule("a")),
        (Rule("a"), Rule("b")),
        (Rule("a", prefix="logs/"), Rule("b", prefix="logs/2026/")),
        (Rule("a", suffix=".gz"), Rule("b", suffix=".json.gz")),
        (Rule("a", prefix="logs/"), Rule("b", suffix=".gz")),
        (Rule("a", prefix="x", suffix=".gz"), Rule("b", prefix="x/y", suffix="z")),
        (Rule("a"), Rule("b", "object-delete", actions=("CopyObject",))),
        (Rule("a"), Rule("b", actions=("CopyObject",))),
        (Rule("a", actions=("PutObject", "CopyObject")), Rule("b", actions=("CopyObject",))),
    ],
)
def test_rules_that_would_fire_twice_are_refused(one, other):
    """Overlapping rules are an error with file, key, the rules and an object key of both."""
    with pytest.raises(ConfigError) as refused:
        check(Rule("z", "object-delete"), one, other)
    said = str(refused.value)
    assert said.startswith("project/edgesim.toml: r2.events.notifications: rules 2 and 3 overlap")
    key = max(one.prefix, other.prefix, key=len) + max(one.suffix, other.suffix, key=len)
    assert repr(key) in said


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Rule("a", prefix="a/"), Rule("b", prefix="b/")),
        (Rule("a", suffix=".gz"), Rule("b", suffix=".json")),
        (Rule("a", prefix="logs/", suffix=".gz"), Rule("b", prefix="logs/", suffix=".json")),
        (Rule("a", "object-create"), Rule("b", "object-delete")),
        (Rule("a", actions=("PutObject",)), Rule("b", actions=("CopyObject",))),
    ],
)
def test_rules_that_exclude_each_other_are_fine(one, other):
    """Rules with different prefixes, suffixes, events or actions do not overlap."""
    check(one, other)


def test_a_bucket_has_at_most_100_rules():
    """A bucket has at most 100 rules, as on the platform."""
    rules = [Rule("q", prefix=f"{number:03}/") for number in range(101)]
    check(*rules[:100])
    with pytest.raises(ConfigError, match="101 rules; a bucket has at most 100"):
        check(*rules)


@pytest.mark.parametrize("table", [{"event": "object-read"}, {"actions": ["GetObject"]}])
def test_unknown_events_and_actions_are_refused(table):
    """A rule for an event or action that the platform does not have cannot be read."""
    with pytest.raises(msgspec.ValidationError, match="Invalid enum value"):
        msgspec.convert({"queue": "q"} | table, Rule)
