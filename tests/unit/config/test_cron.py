"""Cron expressions: the platform's dialect, refused expressions and the next time."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesim.config.cron import parse_cron


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("* * * * *", "2026-01-01T00:00:30", "2026-01-01T00:01"),
        ("*/15 * * * *", "2026-01-01T00:45", "2026-01-01T01:00"),
        ("5/20 * * * *", "2026-01-01T00:26", "2026-01-01T00:45"),
        ("0 22-2 * * *", "2026-01-01T02:00", "2026-01-01T22:00"),
        ("0 0 29 2 *", "2026-01-01T00:00", "2028-02-29T00:00"),
        ("0 0 29 2 *", "2097-01-01T00:00", "2104-02-29T00:00"),
        ("59 23 LW * *", "2026-05-01T00:00", "2026-05-29T23:59"),  # the 31st is a Sunday
        ("0 0 L * *", "2026-02-01T00:00", "2026-02-28T00:00"),
        ("0 0 L-3 * *", "2026-01-01T00:00", "2026-01-28T00:00"),
        ("0 0 1W * *", "2026-08-01T00:00", "2026-08-03T00:00"),  # a Saturday, in its own month
        ("0 0 15W * *", "2026-08-01T00:00", "2026-08-14T00:00"),  # a Saturday
        ("0 0 31W 5 *", "2026-05-01T00:00", "2026-05-29T00:00"),  # a Sunday, the month's last
        ("0 17 * * 1", "2026-01-01T00:00", "2026-01-04T17:00"),  # 1 is Sunday
        ("0 17 * * sun", "2026-01-01T00:00", "2026-01-04T17:00"),
        ("10 7 * * mon-fri", "2026-01-02T08:00", "2026-01-05T07:10"),
        ("10 7 * * 6-2", "2026-01-05T08:00", "2026-01-09T07:10"),  # Friday to Monday
        ("0 0 * * 6L", "2026-01-01T00:00", "2026-01-30T00:00"),  # the last Friday
        ("0 0 * * mon#3", "2026-01-01T00:00", "2026-01-19T00:00"),
        ("0 0 * * L", "2026-01-01T00:00", "2026-01-03T00:00"),  # Saturday
        ("0 0 13 * fri", "2026-01-10T00:00", "2026-01-13T00:00"),  # either field may match
        ("0 0 13 * fri", "2026-01-13T00:00", "2026-01-16T00:00"),
        ("0 0 1 jan,JUL *", "2026-01-01T00:00", "2026-07-01T00:00"),
    ],
)
def test_next_time(expression, after, expected):
    """The next minute for an example of each feature of the dialect."""
    assert parse_cron(expression).next_after(at(after)) == at(expected)


def test_a_day_that_never_comes():
    """An expression for the 30th of February has no next time."""
    assert parse_cron("0 0 30 2 *").next_after(at("2026-01-01T00:00")) is None


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * * 0",
        "* * * * 8",
        "*/0 * * * *",
        "*/60 * * * *",
        "*,5 * * * *",
        "*-6/3 * * * *",
        "* * 3,L * *",
        "* * L-0 * *",
        "* * L-31 * *",
        "* * 1W,3 * *",
        "* * * * mon#6",
        "* * * FOO *",
        "1- * * * *",
        "-1 * * * *",
        "@hourly",
    ],
)
def test_refused(expression):
    """An expression that the platform refuses is an error of one line that quotes it."""
    with pytest.raises(ValueError, match="cron") as caught:
        parse_cron(expression)
    assert repr(expression) in str(caught.value)
    assert "\n" not in str(caught.value)


FIELD = st.sampled_from(["*", "*/7", "3", "1-5", "2,4", "5-2", "1/3"])
DAY = st.sampled_from(["*", "L", "1W", "13", "L-2", "*/9"])
WEEKDAY = st.sampled_from(["*", "1", "mon-wed", "5L", "tue#2", "L"])

MOMENT = st.datetimes(at("2024-01-01").replace(tzinfo=None), at("2030-01-01").replace(tzinfo=None))


@settings(max_examples=60, deadline=None)
@given(FIELD, DAY, WEEKDAY, MOMENT)
def test_the_next_time_is_the_first_that_matches(minute, day, weekday, moment):
    """The next time matches, and no minute before it does."""
    cron = parse_cron(f"{minute} 6 {day} * {weekday}")
    moment = moment.replace(tzinfo=UTC)
    found = cron.next_after(moment)
    assert found is not None
    assert found > moment
    assert cron.matches(found)
    step = moment.replace(second=0, microsecond=0) + timedelta(minutes=1)
    while step < min(found, moment + timedelta(days=3)):
        assert not cron.matches(step)
        step += timedelta(minutes=1)
