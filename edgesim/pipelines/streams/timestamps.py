"""Timestamps of rows: RFC 3339 text in UTC, from text, numbers and dates.

Records that are sent together are mostly of the same few seconds, so the text of a second is kept.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

DEFAULT_UNIT = "millisecond"
_DIGITS = {"second": 0, "millisecond": 3, "microsecond": 6, "nanosecond": 9}
"""Digits after the second, by unit."""
_SCALES = {unit: 10**digits for unit, digits in _DIGITS.items()}
_SECOND = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d", re.ASCII)
_REST = re.compile(r"(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_SECOND_CHARS = 19
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NANOSECOND_YEARS = ("1678", "2261")
"""First and last year of which every instant is a 64-bit number of nanoseconds since 1970."""
_KEPT = 4096


def timestamp_text(value: str | float | datetime, unit: str) -> str | None:
    """The time as RFC 3339 text in UTC, cut to its unit; None if the unit cannot have it."""
    if isinstance(value, int):
        seconds, rest = divmod(value, _SCALES[unit])
        second = _second_since_1970(seconds)
        if second is None:
            return None
        text = second + _end_of_number(rest, unit)
    elif isinstance(value, str):
        second, end = _second(value[:_SECOND_CHARS]), _end_of_text(value[_SECOND_CHARS:], unit)
        if second is not None and end is not None and end[1]:
            second = _second_in_utc(second, end[1])
        if second is None or end is None:
            return None
        text = second + end[0]
    else:
        return timestamp_text(_text_of(value) if isinstance(value, datetime) else int(value), unit)
    if unit == "nanosecond" and not _NANOSECOND_YEARS[0] <= text[:4] <= _NANOSECOND_YEARS[1]:
        return None
    return text


@lru_cache(_KEPT)
def _second(text: str) -> str | None:
    if not _SECOND.fullmatch(text):
        return None
    try:
        return _shown(datetime.fromisoformat(text))
    except ValueError:  # for example month 13
        return None


@lru_cache(_KEPT)
def _second_in_utc(second: str, zone: str) -> str | None:
    try:
        return _shown(datetime.fromisoformat(second + zone).astimezone(UTC))
    except (ValueError, OverflowError):
        return None


@lru_cache(_KEPT)
def _second_since_1970(seconds: int) -> str | None:
    try:
        return _shown(_EPOCH + timedelta(seconds=seconds))
    except OverflowError:
        return None


@lru_cache(_KEPT)
def _end_of_text(text: str, unit: str) -> tuple[str, str] | None:
    """The text after the second, and the zone unless it is UTC; None if the text is none."""
    match = _REST.fullmatch(text)
    if match is None:
        return None
    fraction, zone = match.groups(default="")
    return _end(fraction, unit), "" if zone in {"Z", "z"} else zone


@lru_cache(_KEPT)
def _end_of_number(rest: int, unit: str) -> str:
    return _end(f"{rest:0{_DIGITS[unit]}d}" if rest else "", unit)


def _end(fraction: str, unit: str) -> str:
    """The digits after the second as far as needed, none, three, six or nine, and ``Z``."""
    digits = fraction.ljust(9, "0")[: _DIGITS[unit]]
    while digits.endswith("000"):
        digits = digits[:-3]
    return f".{digits}Z" if digits else "Z"


def _text_of(date: datetime) -> str:
    try:
        utc = date if date.tzinfo is None else date.astimezone(UTC)
    except OverflowError:
        return ""
    return f"{utc.replace(tzinfo=None).isoformat()}Z"


def _shown(date: datetime) -> str:
    return date.isoformat()[:_SECOND_CHARS]
