"""Check of an object store, through any driver: connection, permissions, clock, capabilities.

It leaves nothing behind: objects are removed again.  A bucket that the project creates at its first
write is not created here; a temporary one is, and removed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from hashlib import md5

import anyio
import msgspec

from edgesim.clock import Clock
from edgesim.errors import PlatformError, RunError
from edgesim.model import Diagnosis, iterate, read_all
from edgesim.r2.bucket import Bucket, R2ObjectBody
from edgesim.r2.driver import Finished, R2Driver
from edgesim.r2.notifications import Notifications

CLOCK_SECONDS_MAX = 60.0
"""Tolerated offset: S3 refuses requests that are 15 minutes off, and sets object times itself."""
TIDY_SECONDS = 5.0
_NAME = "edgesim-doctor"
_OTHER = b"other"
_OTHER_MD5 = md5(_OTHER, usedforsecurity=False).hexdigest()
_CACHES = "see whether anything between here and there caches or changes what it passes on"
_LOG = "see the log and the disk of the server"


async def probe(
    driver: R2Driver, buckets: Sequence[str], clock: Clock, where: str
) -> AsyncIterator[Diagnosis]:
    """Yield a problem for each failing bucket, one ok for the others, and distinct warnings."""
    well: list[str] = []
    peculiar: dict[str, Diagnosis] = {}
    for name in buckets:
        try:
            for finding in await _look(driver, name, clock):
                peculiar.setdefault(finding.cure, finding)
            well.append(name)
        except (RunError, PlatformError) as error:
            yield Diagnosis("r2", "problem", error.problem, error.cure or _LOG)
    if well:
        said = f"{where}: objects went there and came back (buckets: {', '.join(well)})"
        yield Diagnosis("r2", "ok", said)
    for finding in peculiar.values():
        yield finding


async def _look(driver: R2Driver, name: str, clock: Clock) -> list[Diagnosis]:
    there = await driver.has(name)
    bucket = Bucket(
        name if there else f"{_NAME}-{clock.hex_id()[:12]}",
        driver,
        clock,
        Notifications({}, clock, _NAME),
    )
    key, found = f".{_NAME}/{clock.hex_id()}", []
    try:
        await _round_trip(bucket, key, clock.hex_id().encode())
        found += await _conditions(driver, bucket, key, clock)
        found += await _clock(bucket, key, clock)
    finally:
        found += await _tidy(driver, bucket, key, made=not there)
    return found


async def _round_trip(bucket: Bucket, key: str, sent: bytes) -> None:
    await bucket.put(key, sent)
    found = await bucket.get(key)
    read = await read_all(found.body) if isinstance(found, R2ObjectBody) else b""
    if read != sent:
        raise RunError(f"an object of bucket {bucket.name} is stale after its put", _CACHES)


async def _conditions(driver: R2Driver, bucket: Bucket, key: str, clock: Clock) -> list[Diagnosis]:
    """Warn if a put with the precondition "no object" replaces an existing object."""
    there = await bucket.head(key)
    if there is None:
        raise RunError(f"an object of bucket {bucket.name} is missing after its put", _CACHES)
    other = msgspec.structs.replace(
        there, version=clock.hex_id(), etag=_OTHER_MD5, size=len(_OTHER)
    )
    if not await driver.put(bucket.name, key, iterate(_OTHER), lambda: Finished(other), None):
        return []
    said = "the server has no conditional writes: of two nodes that create one key, both win"
    cure = "use a server that has them, or let one node alone write with onlyIf"
    return [Diagnosis("r2", "warning", said, cure)]


async def _clock(bucket: Bucket, key: str, clock: Clock) -> list[Diagnosis]:
    """Compare clocks: the time of an object uploaded in parts is set by the store."""
    upload = await bucket.create_multipart_upload(key)
    part = await upload.upload_part(1, b"part")
    stored = await upload.complete([(part.number, part.etag)])
    ahead = stored.uploaded / 1000 - clock.now()
    if abs(ahead) <= CLOCK_SECONDS_MAX:
        return []
    said = f"its clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
    return [Diagnosis("r2", "warning", said, "let both machines keep time by NTP")]


async def _tidy(driver: R2Driver, bucket: Bucket, key: str, *, made: bool) -> list[Diagnosis]:
    said = "it did not answer"
    with anyio.move_on_after(TIDY_SECONDS, shield=True):
        try:
            await bucket.delete(key)
            if made:
                await driver.drop(bucket.name)
        except RunError as error:
            said = error.problem
        else:
            return []
    said = f"{bucket.name}/{key} may be left behind: {said}"
    return [Diagnosis("r2", "warning", said, "remove it there")]
