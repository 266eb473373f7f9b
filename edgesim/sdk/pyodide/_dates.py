"""JavaScript's dates: text formats, parsing, and the methods of ``Date``.  The time zone is UTC."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from pyodide._errors import JsException

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS_MAX = 8.64e15
_YEAR_MAX = 300_000  # more than a Date can have
_DAY_MS = 86_400_000
_WEEKDAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_ZONE = "GMT+0000 (Coordinated Universal Time)"
_ISO = (
    r"([+-]\d{6}|\d{4})(?:-(\d\d)(?:-(\d\d))?)?"
    r"(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(?: ?(Z|[+-]\d\d:?\d\d))?)?"
)
_NUMBERS = (
    r"(?:(\d{4})[/-](\d{1,2})[/-](\d{1,2})|(\d{1,2})[/-](\d{1,2})[/-](\d{4}))"
    r"(?:,? (\d{1,2})(:\d\d(?::\d\d(?:\.\d+)?)?)(?: ([AaPp])[Mm])?(?: ?(Z|[+-]\d\d:?\d\d))?)?"
)
_MONTH_FIRST = r"^([A-Za-z]+) (\d{1,2}),? (\d{4})"
_INVALID = "Invalid Date"

Fields = tuple[int, int, int, int, int, int, int]
"""Year, month (from 0), day, hours, minutes, seconds, milliseconds."""


def ms_of(fields: tuple[float, ...]) -> float:
    """Return the Unix milliseconds of fields, which may be beyond their ranges; NaN if invalid."""
    if not all(map(math.isfinite, fields)):
        return math.nan
    year, month, day, *time = (math.trunc(each) for each in fields)
    year, month = year + month // 12, month % 12
    days = _days_before(year, month) + day - 1
    hours, minutes, seconds, ms = time
    return clipped(days * _DAY_MS + ((hours * 60 + minutes) * 60 + seconds) * 1000 + ms)


def clipped(ms: float) -> float:
    """Return the time value; NaN if a Date cannot have it."""
    return math.trunc(ms) if math.isfinite(ms) and abs(ms) <= _MS_MAX else math.nan


def _days_before(year: int, month: int) -> int:
    """Return the days from 1970-01-01 to the first of the month, in the Gregorian calendar."""
    # A year that begins in March has its leap day at the end.
    year, month = (year, month - 2) if month > 1 else (year - 1, month + 10)
    days = 365 * year + year // 4 - year // 100 + year // 400
    return days + (153 * month + 2) // 5 - 719_468


def fields_of(ms: float) -> Fields:
    """Return the fields of Unix milliseconds."""
    days, rest = divmod(int(ms), _DAY_MS)
    days += 719_468
    era, day = divmod(days, 146_097)
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    day -= (153 * month + 2) // 5
    year += 400 * era + (month > 9)
    seconds, ms = divmod(rest, 1000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return year, (month + 2) % 12, day + 1, hour, minute, second, int(ms)


def parsed(text: str) -> float:
    """Return the Unix milliseconds of ISO 8601, RFC 2822 and common other texts, or NaN."""
    text = text.strip()
    iso = re.fullmatch(_ISO, text, re.IGNORECASE)
    if iso is not None:
        year, month, day, hour, minute, second, fraction, zone = iso.groups()
        ms = int(f"{fraction or 0:0<3}"[:3])
        days = (int(year), int(month or 1) - 1, int(day or 1))
        return _checked((*days, int(hour or 0), int(minute or 0), int(second or 0), ms), zone)
    numeric = re.fullmatch(_NUMBERS, text)
    if numeric is not None:
        return _parsed_numbers(*numeric.groups())
    from email.utils import parsedate_tz  # only here: it takes long to import

    text = re.sub(_MONTH_FIRST, r"\2 \1 \3", text)
    found = parsedate_tz(text) or parsedate_tz(f"{text} 00:00:00")
    if found is None or abs(found[0]) > _YEAR_MAX:
        return math.nan
    year, month, day, hour, minute, second, *_, offset = found
    seconds = _checked((year, month - 1, day, hour, minute, second, 0), None) / 1000
    return clipped((seconds - (offset or 0)) * 1000)


def _parsed_numbers(*groups: str | None) -> float:
    """Return the Unix milliseconds of ``2026/3/4 5:06 PM`` or ``3/4/2026 5:06``, or NaN."""
    year, month, day, other_month, other_day, other_year, hours, rest, half, zone = groups
    date = f"{year or other_year}-{month or other_month:0>2}-{day or other_day:0>2}"
    if hours is None:
        return parsed(date)
    hour = int(hours)
    if half is not None:
        if not 1 <= hour <= 12:
            return math.nan
        hour = hour % 12 + (12 if half in "pP" else 0)
    return parsed(f"{date} {hour:02}{rest}{zone or ''}")


def _checked(fields: Fields, zone: str | None) -> float:
    """Return the Unix milliseconds; NaN if a field is beyond its range."""
    _, month, day, hour, minute, second, ms = fields
    is_end_of_day = (hour, minute, second, ms) == (24, 0, 0, 0)
    if not (0 <= month <= 11 and 1 <= day <= 31 and minute <= 59 and second <= 59):
        return math.nan
    if hour > 23 and not is_end_of_day:
        return math.nan
    offset = 0
    if zone is not None and zone not in "zZ":
        digits = zone[1:].replace(":", "")
        offset = (int(digits[:2]) * 60 + int(digits[2:])) * (-1 if zone[0] == "-" else 1)
    return clipped(ms_of(fields) - offset * 60_000)


def _getter(index: int) -> Callable[[Any], float]:
    def get(self: Any) -> float:
        return math.nan if math.isnan(self._ms) else fields_of(self._ms)[index]

    return get


def _setter(index: int, count: int) -> Callable[..., float]:
    def put(self: Any, *values: float) -> float:
        before = (1970, 0, 1, 0, 0, 0, 0) if math.isnan(self._ms) else fields_of(self._ms)
        if math.isnan(self._ms) and index:
            return math.nan
        given = [float(value) for value in values[:count]] or [math.nan]
        self._ms = ms_of((*before[:index], *given, *before[index + len(given) :]))
        return float(self._ms) if math.isnan(self._ms) else int(self._ms)

    return put


class DateMethods:
    """Methods of a Date, over ``_ms``: its Unix milliseconds, NaN if it is invalid."""

    _ms: float

    def getTime(self) -> float:
        """Return Unix milliseconds; NaN for an invalid date."""
        return self._ms if math.isnan(self._ms) else int(self._ms)

    valueOf = getTime

    def setTime(self, ms: float) -> float:
        """Set the Unix milliseconds."""
        self._ms = clipped(float(ms))
        return self.getTime()

    getFullYear = getUTCFullYear = _getter(0)
    getMonth = getUTCMonth = _getter(1)
    getDate = getUTCDate = _getter(2)
    getHours = getUTCHours = _getter(3)
    getMinutes = getUTCMinutes = _getter(4)
    getSeconds = getUTCSeconds = _getter(5)
    getMilliseconds = getUTCMilliseconds = _getter(6)
    setFullYear = setUTCFullYear = _setter(0, 3)
    setMonth = setUTCMonth = _setter(1, 2)
    setDate = setUTCDate = _setter(2, 1)
    setHours = setUTCHours = _setter(3, 4)
    setMinutes = setUTCMinutes = _setter(4, 3)
    setSeconds = setUTCSeconds = _setter(5, 2)
    setMilliseconds = setUTCMilliseconds = _setter(6, 1)

    def getDay(self) -> float:
        """Return the weekday; 0 is Sunday."""
        return math.nan if math.isnan(self._ms) else (int(self._ms) // _DAY_MS + 4) % 7

    getUTCDay = getDay

    def getTimezoneOffset(self) -> float:
        """Return the offset from UTC in minutes: 0."""
        return math.nan if math.isnan(self._ms) else 0

    def toISOString(self) -> str:
        """Return ISO 8601 in UTC, such as ``2026-01-31T12:00:00.000Z``."""
        if math.isnan(self._ms):
            raise JsException("RangeError", "Invalid time value")
        year, month, day, *time = fields_of(self._ms)
        shown = f"{year:04}" if 0 <= year <= 9999 else f"{year:+07}"
        hour, minute, second, ms = time
        return f"{shown}-{month + 1:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z"

    def _text(self, pattern: str) -> str:
        if math.isnan(self._ms):
            return _INVALID
        year, month, day, hour, minute, second, _ = fields_of(self._ms)
        return pattern.format(
            weekday=_WEEKDAYS[int(self.getDay())],
            month=_MONTHS[month],
            month_number=month + 1,
            day=day,
            year=f"{year:04}" if year >= 0 else f"-{-year:04}",
            hour=hour,
            hour_of_12=hour % 12 or 12,
            half="AM" if hour < 12 else "PM",
            minute=minute,
            second=second,
        )

    def toString(self) -> str:
        """Return the date, time and zone."""
        text = self._text("{weekday} {month} {day:02} {year} {hour:02}:{minute:02}:{second:02} ")
        return text if text == _INVALID else text + _ZONE

    def toDateString(self) -> str:
        """Return the weekday and the date."""
        return self._text("{weekday} {month} {day:02} {year}")

    def toTimeString(self) -> str:
        """Return the time and the zone."""
        text = self._text("{hour:02}:{minute:02}:{second:02} ")
        return text if text == _INVALID else text + _ZONE

    def toUTCString(self) -> str:
        """Return the format of HTTP headers."""
        return self._text(
            "{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT"
        )

    def toLocaleDateString(self, locales: Any = None, options: Any = None) -> str:
        """Return the date in American English, the only language here."""
        _refuse(locales, options)
        return self._text("{month_number}/{day}/{year}")

    def toLocaleTimeString(self, locales: Any = None, options: Any = None) -> str:
        """Return the time in American English, the only language here."""
        _refuse(locales, options)
        return self._text("{hour_of_12}:{minute:02}:{second:02} {half}")

    def toLocaleString(self, locales: Any = None, options: Any = None) -> str:
        """Return date and time in American English, the only language here."""
        date, time = (
            self.toLocaleDateString(locales, options),
            self.toLocaleTimeString(locales, options),
        )
        return date if date == _INVALID else f"{date}, {time}"

    def _datetime(self) -> datetime:
        """Return the value for the wire; TypeError for an invalid date or a year beyond 9999."""
        try:
            return EPOCH + timedelta(milliseconds=self._ms)
        except (ValueError, OverflowError):
            raise TypeError(
                f"{self.toString()} cannot be sent: edgesim sends years 1 to 9999"
            ) from None

    def __repr__(self) -> str:
        return self.toString()

    def __lt__(self, other: Any) -> bool:
        return bool(self._ms < _compared(other))

    def __le__(self, other: Any) -> bool:
        return bool(self._ms <= _compared(other))

    def __gt__(self, other: Any) -> bool:
        return bool(self._ms > _compared(other))

    def __ge__(self, other: Any) -> bool:
        return bool(self._ms >= _compared(other))


def _compared(other: Any) -> float:
    return other._ms if isinstance(other, DateMethods) else float(other)


def _refuse(locales: Any, options: Any) -> None:
    if options is not None or locales not in {None, "en-US", "en"}:
        raise NotImplementedError(
            "languages and options of Date.toLocaleString and its like are not in edgesim; "
            "use strftime of datetime"
        )
