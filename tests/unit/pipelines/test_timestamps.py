"""Timestamps of rows: text, numbers and dates of each unit become RFC 3339 text in UTC."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesim.pipelines.streams.timestamps import timestamp_text

SCALES = {"second": 1, "millisecond": 10**3, "microsecond": 10**6, "nanosecond": 10**9}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECONDS = st.integers(-290 * 31_536_000, 290 * 31_536_000)
"""Seconds after 1970, of which every unit has a number."""
ZONES = st.integers(-(24 * 60 - 1), 24 * 60 - 1)
"""Minutes ahead of UTC."""


def nanoseconds(text: str) -> int:
    """The nanoseconds since 1970 of a canonical text."""
    assert text.endswith("Z")
    second, _, digits = text[:-1].partition(".")
    assert len(digits) in {0, 3, 6, 9}
    assert not digits.endswith("000")
    since = datetime.fromisoformat(f"{second}Z") - EPOCH
    return (since.days * 86_400 + since.seconds) * 10**9 + int(digits.ljust(9, "0"))


@given(SECONDS, st.integers(0, 10**9 - 1), st.sampled_from(list(SCALES)))
def test_numbers_of_every_unit(seconds, rest, unit):
    """A number is so many units after 1970, or before."""
    value = seconds * SCALES[unit] + rest % SCALES[unit]
    text = timestamp_text(value, unit)
    assert text is not None
    assert nanoseconds(text) == value * (10**9 // SCALES[unit])


@given(
    SECONDS,
    st.text("0123456789", max_size=12),
    ZONES,
    st.sampled_from("Tt "),
    st.sampled_from(list(SCALES)),
)
def test_text_of_every_zone(seconds, fraction, minutes, separator, unit):
    """The same instant, cut to the unit."""
    local = EPOCH + timedelta(seconds=seconds, minutes=minutes)
    shown = local.strftime(f"%Y-%m-%d{separator}%H:%M:%S") + (f".{fraction}" if fraction else "")
    zone = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
    text = timestamp_text(shown + (zone if minutes else "z"), unit)
    assert text is not None
    step = 10**9 // SCALES[unit]
    whole = seconds * 10**9 + int(fraction[:9].ljust(9, "0"))
    assert nanoseconds(text) == whole // step * step


@given(st.text("0123456789-+:.TZz \u0663", max_size=30), st.sampled_from(list(SCALES)))
def test_other_text_is_no_time(text, unit):
    """Random text of the characters of times is none, or is read as Python reads it."""
    found = timestamp_text(text, unit)
    if found is not None:
        date = datetime.fromisoformat(text.upper()).astimezone(UTC)
        assert found[:19] == date.isoformat()[:19]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        ("2026-11-29T12:00:00+02:00", "second", "2026-11-29T10:00:00Z"),
        ("2026-11-29t12:00:00.5z", "millisecond", "2026-11-29T12:00:00.500Z"),
        ("2026-11-29t12:00:00.999z", "second", "2026-11-29T12:00:00Z"),
        ("2026-11-29 12:00:00.123456789Z", "nanosecond", "2026-11-29T12:00:00.123456789Z"),
        ("2026-11-29T12:00:00.1234567891Z", "nanosecond", "2026-11-29T12:00:00.123456789Z"),
        ("2026-11-29T12:00:00.123456789Z", "microsecond", "2026-11-29T12:00:00.123456Z"),
        ("2026-11-29T12:00:00.000456Z", "millisecond", "2026-11-29T12:00:00Z"),
        ("0001-01-01T00:00:00Z", "second", "0001-01-01T00:00:00Z"),
        ("0001-01-01T00:00:00+01:00", "second", None),
        ("9999-12-31T23:59:59Z", "nanosecond", None),
        ("2026-11-29", "second", None),
        (1_700_000_000_123, "millisecond", "2023-11-14T22:13:20.123Z"),
        (1_700_000_000_123_456, "microsecond", "2023-11-14T22:13:20.123456Z"),
        (1_700_000_000_000_000_007, "nanosecond", "2023-11-14T22:13:20.000000007Z"),
        (-1, "millisecond", "1969-12-31T23:59:59.999Z"),
        (0, "second", "1970-01-01T00:00:00Z"),
        (
            datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
            "second",
            "2026-01-01T00:00:00Z",
        ),
        (
            datetime(2026, 1, 1, 0, 0, 0, 250_000, tzinfo=UTC),
            "microsecond",
            "2026-01-01T00:00:00.250Z",
        ),
    ],
)
def test_times_are_utc_text(value, unit, text):
    """Text, Dates and numbers of each unit become the same form; no time is None."""
    assert timestamp_text(value, unit) == text
