"""Cron expressions in the platform's dialect.

Sources: Cloudflare's documentation of Cron Triggers and its parser, saffron.  Five fields in UTC:
minute, hour, day of month, month, day of week.  If both day fields are restricted, a date matches
if either does.  Days of the week are 1 (Sunday) to 7 (Saturday), so libraries for Unix cron cannot
be used: there Sunday is 0, and ``1-5`` means other days.  A range may wrap around (``22-2``);
``L``, ``W`` and ``#`` are as in Quartz.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import msgspec

_MONTHS = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC"
_WEEKDAYS = "SUN MON TUE WED THU FRI SAT"
_YEARS_AHEAD = 9
"""Years that ``next_after`` searches: the next 29 February may be eight years away."""

Days = Callable[[date], bool]


class Cron(msgspec.Struct, frozen=True):
    """A parsed cron expression: the sets of matching minutes, hours, months and days."""

    minutes: frozenset[int]
    hours: frozenset[int]
    months: frozenset[int]
    days: Days
    """True for a matching date; ``months`` is checked separately."""

    def matches(self, moment: datetime) -> bool:
        """True if the minute of ``moment`` (UTC) matches the expression."""
        return (
            moment.minute in self.minutes and moment.hour in self.hours and self._on(moment.date())
        )

    def next_after(self, moment: datetime) -> datetime | None:
        """First matching minute after that of ``moment`` (UTC); None if none within 9 years."""
        minute = moment.replace(second=0, microsecond=0) + timedelta(minutes=1)
        day = minute.date()
        for _ in range(366 * _YEARS_AHEAD):
            if self._on(day):
                for hour in sorted(self.hours):
                    for number in sorted(self.minutes):
                        found = datetime(day.year, day.month, day.day, hour, number, tzinfo=UTC)
                        if found >= minute:
                            return found
            day += timedelta(days=1)
        return None

    def _on(self, day: date) -> bool:
        return day.month in self.months and bool(self.days(day))


def parse_cron(expression: str) -> Cron:
    """Parse five cron fields; ValueError (one line) for an expression the platform refuses."""
    fields = expression.split()
    if len(fields) != 5:
        raise ValueError(f"cron {expression!r}: needs 5 fields, has {len(fields)}")
    minute, hour, day_of_month, month, day_of_week = fields
    try:
        return Cron(
            minutes=_values(minute, 0, 59),
            hours=_values(hour, 0, 23),
            months=_values(month, 1, 12, _MONTHS),
            days=_days(day_of_month, day_of_week),
        )
    except ValueError as error:
        raise ValueError(f"cron {expression!r}: {error}") from error


def _values(field: str, low: int, high: int, names: str = "") -> frozenset[int]:
    """Parse a comma-separated list of values, ranges and steps; ``names`` are 1, 2, 3 and so on."""
    if field == "*":
        return frozenset(range(low, high + 1))
    return frozenset().union(*(_part(part, low, high, names) for part in field.split(",")))


def _part(part: str, low: int, high: int, names: str) -> set[int]:
    whole, slash, step_text = part.partition("/")
    first_text, dash, last_text = whole.partition("-")
    if first_text == "*" and (dash or not slash):
        raise ValueError(f"{part!r}: a star stands alone or before a step")
    first = low if first_text == "*" else _number(first_text, low, high, names)
    last = _number(last_text, low, high, names) if dash else high if slash else first
    step = _number(step_text, 1, high - low) if slash else 1
    span = high - low + 1
    length = (last - first) % span + 1
    return {(first - low + index) % span + low for index in range(0, length, step)}


def _number(text: str, low: int, high: int, names: str = "") -> int:
    known = names.split()
    if text.upper() in known:
        return known.index(text.upper()) + 1
    value = int(text) if re.fullmatch(r"[0-9]{1,3}", text) else -1
    if not low <= value <= high:
        raise ValueError(f"{text!r} is not from {low} to {high}")
    return value


def _days(day_of_month: str, day_of_week: str) -> Days:
    of_month, of_week = _days_of_month(day_of_month), _days_of_week(day_of_week)
    if day_of_week == "*":
        return of_month
    if day_of_month == "*":
        return of_week
    return lambda day: of_month(day) or of_week(day)


def _days_of_month(field: str) -> Days:
    if match := re.fullmatch(r"L(?:-(\d+))?(W?)", field):
        back = _number(match[1], 1, 30) if match[1] else 0
        weekday = bool(match[2])
        return lambda day: _is_counted(day, _days_in_month(day) - back, weekday=weekday)
    if match := re.fullmatch(r"(\d+)W", field):
        number = _number(match[1], 1, 31)
        return lambda day: _is_counted(day, number, weekday=True)
    numbers = _values(field, 1, 31)
    return lambda day: day.day in numbers


def _is_counted(day: date, number: int, *, weekday: bool) -> bool:
    """True if ``day`` has that number, or with ``weekday`` is the weekday nearest to that day."""
    if not 1 <= number <= _days_in_month(day):
        return False
    wanted = day.replace(day=number)
    if weekday and wanted.weekday() == calendar.SATURDAY:
        wanted += timedelta(days=-1 if number > 1 else 2)
    elif weekday and wanted.weekday() == calendar.SUNDAY:
        wanted += timedelta(days=1 if number < _days_in_month(day) else -2)
    return day == wanted


def _days_of_week(field: str) -> Days:
    if field == "L":
        field = "SAT"
    if match := re.fullmatch(r"(\w+)L", field):
        last = _number(match[1], 1, 7, _WEEKDAYS)
        return lambda day: _weekday(day) == last and day.day + 7 > _days_in_month(day)
    if match := re.fullmatch(r"(\w+)#(\d+)", field):
        nth, of = _number(match[2], 1, 5), _number(match[1], 1, 7, _WEEKDAYS)
        return lambda day: _weekday(day) == of and (day.day - 1) // 7 + 1 == nth
    numbers = _values(field, 1, 7, _WEEKDAYS)
    return lambda day: _weekday(day) in numbers


def _weekday(day: date) -> int:
    return day.isoweekday() % 7 + 1


def _days_in_month(day: date) -> int:
    return calendar.monthrange(day.year, day.month)[1]
