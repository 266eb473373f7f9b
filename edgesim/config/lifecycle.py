"""Lifecycle rules of R2 buckets: ``[[r2.NAME.lifecycle]]`` of edgesim.toml.

Keys and values are those of ``wrangler r2 bucket lifecycle add``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import msgspec

from edgesim.errors import ConfigError

RULES_MAX = 1000
DAY_MS = 86_400_000
Days = Annotated[float, msgspec.Meta(ge=0)]


class LifecycleRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Actions on the objects and uploads of a bucket whose keys begin with the prefix.

    Days count from the upload of an object, or from the start of a multipart upload; at a date
    (midnight UTC) an action applies to all objects.
    """

    name: str
    prefix: str = ""
    enabled: bool = True
    expire_days: Days | None = None
    expire_date: date | None = None
    ia_transition_days: Days | None = None
    ia_transition_date: date | None = None
    abort_multipart_days: Days | None = None

    @property
    def expires(self) -> bool:
        """True if the rule deletes objects."""
        return self.expire_days is not None or self.expire_date is not None

    @property
    def transitions(self) -> bool:
        """True if the rule moves objects to the storage class InfrequentAccess."""
        return self.ia_transition_days is not None or self.ia_transition_date is not None


def check_lifecycle(file: Path, bucket: str, rules: Sequence[LifecycleRule]) -> None:
    """Raise ConfigError for rules that the platform refuses."""
    place = f"r2.{bucket}.lifecycle"
    if len(rules) > RULES_MAX:
        raise ConfigError(file, place, f"{len(rules)} rules; a bucket has at most {RULES_MAX}")
    names: set[str] = set()
    for index, rule in enumerate(rules):
        if (problem := _problem(rule)) is not None:
            raise ConfigError(file, f"{place}[{index}]", problem)
        if rule.name in names:
            problem = f"{rule.name!r} is another rule's name already; give each rule its own"
            raise ConfigError(file, f"{place}[{index}].name", problem)
        names.add(rule.name)


def midnight_ms(day: date) -> int:
    """The beginning of a day, UTC, in Unix milliseconds."""
    return round(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)


def _problem(rule: LifecycleRule) -> str | None:
    if not rule.name:
        return "has an empty name; name the rule"
    for action in ("expire", "ia_transition"):
        if None not in {getattr(rule, f"{action}_days"), getattr(rule, f"{action}_date")}:
            return f"has both {action}_days and {action}_date; keep one"
    if not (rule.expires or rule.transitions or rule.abort_multipart_days is not None):
        actions = "expire_days, expire_date, ia_transition_days, ia_transition_date"
        return f"has no action; set {actions} or abort_multipart_days"
    return None
