"""Lifecycle rules at work: objects expire or change their class, unfinished uploads are aborted.

The platform applies rules within 24 hours; here they are applied at the start and every hour, by
the clock of the run, which may be virtual.  A step of the system's clock is not an age.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import anyio
import structlog

from edgesim.clock import Clock
from edgesim.config.lifecycle import DAY_MS, LifecycleRule, midnight_ms
from edgesim.errors import RunError
from edgesim.model import R2Object
from edgesim.r2.bucket import Bucket
from edgesim.timeline import Ages

INTERVAL_SECONDS = 3_600.0
INFREQUENT_ACCESS = "InfrequentAccess"

log = structlog.get_logger()


class Lifecycle:
    """The lifecycle rules of one bucket."""

    def __init__(self, rules: Sequence[LifecycleRule], bucket: Bucket, clock: Clock) -> None:
        self._rules = [rule for rule in rules if rule.enabled]
        self._bucket = bucket
        self._clock = clock
        self._ages = Ages(clock, f"lifecycle of r2 bucket {bucket.name}")

    async def run(self) -> None:
        """Apply the rules now and every INTERVAL_SECONDS; a failure is logged and tried again."""
        while True:
            try:
                await self.apply()
            except RunError as error:
                name, seconds = self._bucket.name, INTERVAL_SECONDS
                log.error(
                    "lifecycle rules not applied", bucket=name, error=str(error), retry_in=seconds
                )
            await anyio.sleep(INTERVAL_SECONDS)

    async def apply(self) -> None:
        """Apply every rule once; RunError if the store fails, with some actions done."""
        for rule in self._rules:
            expired = moved = 0
            if rule.expires or rule.transitions:
                expired, moved = await self._apply_to_objects(rule)
            aborted = await self._abort_uploads(rule)
            if expired or moved or aborted:
                log.info(
                    "lifecycle rule applied",
                    bucket=self._bucket.name,
                    rule=rule.name,
                    expired=expired,
                    moved=moved,
                    aborted=aborted,
                )

    async def _apply_to_objects(self, rule: LifecycleRule) -> tuple[int, int]:
        """Delete or move the objects that are due; returns the numbers of both."""
        expire_by = self._due_by(rule.expire_days, rule.expire_date)
        move_by = self._due_by(rule.ia_transition_days, rule.ia_transition_date)

        def is_expired(found: R2Object) -> bool:
            return found.uploaded <= expire_by

        def is_to_move(found: R2Object) -> bool:
            return found.uploaded <= move_by and found.storage_class != INFREQUENT_ACCESS

        expired = moved = 0
        cursor: str | None = None
        while True:
            page = await self._bucket.list(prefix=rule.prefix, cursor=cursor)
            due = [found.key for found in page.objects if is_expired(found)]
            expired += await self._bucket.expire(due, is_expired)
            for found in page.objects:
                if is_to_move(found) and not is_expired(found):
                    moved += await self._bucket.change_class(
                        found.key, INFREQUENT_ACCESS, is_to_move
                    )
            if not page.truncated:
                return expired, moved
            cursor = page.cursor

    async def _abort_uploads(self, rule: LifecycleRule) -> int:
        if rule.abort_multipart_days is None:
            return 0
        begun_by = self._due_by(rule.abort_multipart_days, None)
        due = [u for u in await self._bucket.uploads(rule.prefix) if u.begun_ms <= begun_by]
        for upload in due:
            await self._bucket.resume_multipart_upload(upload.key, upload.upload_id).abort()
        return len(due)

    def _due_by(self, days: float | None, day: date | None) -> float:
        """The latest Unix time in ms at which something that is due was stored."""
        if days is not None:
            return self._ages.begun_by_ms(round(days * DAY_MS))
        if day is not None and self._clock.now_ms() >= midnight_ms(day):
            return float("inf")
        return float("-inf")
