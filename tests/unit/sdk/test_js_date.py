"""``Date``: texts, fields and arithmetic in UTC.  Judge: Node and Python's datetime."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from js import JSON, Date
from pyodide.ffi import JsException

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TEXTS = [
    ("2026-01-31", 1_769_817_600_000),
    ("2026-01-31T12:00:00Z", 1_769_860_800_000),
    ("2026-01-31T12:00:00+02:00", 1_769_853_600_000),
    ("2026-01-31T24:00:00Z", 1_769_904_000_000),
    ("Sat, 31 Jan 2026 12:00:00 GMT", 1_769_860_800_000),
    ("Jan 5, 2026", 1_767_571_200_000),
    ("2026-02-30", 1_772_409_600_000),
    ("+275760-09-13", 8_640_000_000_000_000),
    ("2026/3/4", 1_772_582_400_000),
    ("3/4/2026 5:06", 1_772_600_760_000),
    ("3/4/2026, 5:06:07 PM", 1_772_643_967_000),
    ("3/4/2026 12:00 AM", 1_772_582_400_000),
    ("3/4/2026 5:06:07.123", 1_772_600_767_123),
    ("2026/3/4 05:06 +0200", 1_772_593_560_000),
]


@pytest.mark.parametrize(("text", "ms"), TEXTS)
def test_texts_of_dates(text, ms):
    """Date.parse reads ISO 8601, RFC 2822 and other common texts as V8 does."""
    assert Date.parse(text) == ms
    assert Date.new(text).getTime() == ms


NO_DATES = ["", "x", "2026-13-01", "2026-01-01T25:00:00Z", "3/4/2026 x", "3/4/2026 5"]
NO_DATES += ["31 Jan 99999999999999999999 12:12", "99 Jan 2026 12:12", "31 Jan 2026 12:99"]
WORDS = [
    *("Sat,", "Jan", "31", "2026", "99999999999999999999", "-", "/", ":", "12"),
    *("GMT", "+0200", "é", " "),
]


@pytest.mark.parametrize("text", NO_DATES)
def test_texts_that_are_no_date(text):
    """Other text is an invalid date: NaN, null in JSON, and a RangeError of toISOString."""
    date = Date.new(text)
    assert math.isnan(date.getTime())
    assert JSON.stringify(date) == "null"
    with pytest.raises(JsException, match=r"^RangeError"):
        date.toISOString()


@given(st.datetimes(timezones=st.just(UTC)))
def test_fields_are_those_of_the_calendar(at):
    """Every moment of Python's calendar has the same fields and the same text."""
    ms = (at - EPOCH) // timedelta(milliseconds=1)
    date = Date.new(ms)
    shown = [
        *(date.getUTCFullYear(), date.getUTCMonth() + 1, date.getUTCDate()),
        *(date.getUTCHours(), date.getUTCMinutes(), date.getUTCSeconds()),
    ]
    assert shown == [at.year, at.month, at.day, at.hour, at.minute, at.second]
    assert date.getUTCDay() == at.isoweekday() % 7
    assert Date.parse(date.toISOString()) == ms
    assert date.toISOString() == f"{at:%Y}".zfill(4) + f"{at:-%m-%dT%H:%M:%S}.{ms % 1000:03}Z"


def test_fields_beyond_their_ranges():
    """A field that is set beyond its range moves the larger ones."""
    date = Date.new(2026, 0, 31)
    date.setUTCMonth(1)
    assert date.toISOString() == "2026-03-03T00:00:00.000Z"
    date.setUTCDate(0)
    assert date.toISOString() == "2026-02-28T00:00:00.000Z"
    assert Date.UTC(2026, 12, 1) == Date.UTC(2027, 0, 1)


@given(st.lists(st.sampled_from(WORDS), max_size=9).map("".join))
def test_any_text_is_a_date_or_invalid(text):
    """Text is never an error: a date has whole milliseconds, other text is NaN."""
    ms = Date.parse(text)
    assert math.isnan(ms) or isinstance(ms, int)
