"""Event notification rules of R2 buckets: ``[[r2.NAME.notifications]]`` of edgesim.toml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Literal

import msgspec

from edgesim.errors import ConfigError

Event = Literal["object-create", "object-delete"]
Action = Literal[
    "PutObject", "CopyObject", "CompleteMultipartUpload", "DeleteObject", "LifecycleDeletion"
]

RULES_MAX = 100
ACTIONS: Mapping[Event, frozenset[Action]] = {
    "object-create": frozenset({"PutObject", "CopyObject", "CompleteMultipartUpload"}),
    "object-delete": frozenset({"DeleteObject", "LifecycleDeletion"}),
}


class NotificationRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Notifies a queue of objects whose key has both the prefix and the suffix, literally.

    ``actions`` names single actions in place of all those of the event.
    """

    queue: str
    event: Event = "object-create"
    prefix: str = ""
    suffix: str = ""
    actions: tuple[Action, ...] = ()
    description: str = ""

    @property
    def fires_at(self) -> frozenset[Action]:
        """The actions that fire the rule."""
        return frozenset(self.actions) or ACTIONS[self.event]

    def fires(self, action: Action, key: str) -> bool:
        """True if the rule fires for this action on this key."""
        return action in self.fires_at and key.startswith(self.prefix) and key.endswith(self.suffix)

    def overlaps(self, other: NotificationRule) -> bool:
        """True if both rules can fire for one action on one object.

        Two prefixes occur in one key only if one begins with the other, and suffixes likewise; the
        longer prefix followed by the longer suffix is then such a key.
        """
        return bool(
            self.fires_at & other.fires_at
            and _meet(self.prefix, other.prefix)
            and _meet(self.suffix[::-1], other.suffix[::-1])
        )


def check_notifications(file: Path, bucket: str, rules: Sequence[NotificationRule]) -> None:
    """Raise ConfigError if a bucket has too many rules, or two that fire for one action."""
    place = f"r2.{bucket}.notifications"
    if len(rules) > RULES_MAX:
        raise ConfigError(file, place, f"{len(rules)} rules; a bucket has at most {RULES_MAX}")
    for (first, one), (second, other) in combinations(enumerate(rules, 1), 2):
        if one.overlaps(other):
            key = max(one.prefix, other.prefix, key=len) + max(one.suffix, other.suffix, key=len)
            action = min(one.fires_at & other.fires_at)
            raise ConfigError(
                file,
                place,
                f"rules {first} and {second} overlap: both would fire at {action} of {key!r}; "
                "give them prefixes or suffixes that exclude each other, or join them",
            )


def _meet(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)
