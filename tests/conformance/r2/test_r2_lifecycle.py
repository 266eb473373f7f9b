"""Lifecycle rules on every R2 driver: what they delete, move and abort, and what they spare."""

from datetime import timedelta

import pytest

from edgesim.config.lifecycle import DAY_MS, LifecycleRule
from edgesim.model import HttpMetadata
from edgesim.r2.lifecycle import Lifecycle
from tests.r2_world import text

pytestmark = pytest.mark.anyio

MIB = 1 << 20


def lifecycle(world, *rules):
    return Lifecycle(rules, world.bucket, world.clock)


async def keys(bucket):
    return [found.key for found in (await bucket.list()).objects]


async def settle(world):
    """Forget the notifications so far."""
    await world.driver.settle([each.id for each in await world.driver.outbox(1000)])


async def test_objects_expire_with_a_notification(world):
    """Objects of the age and prefix are deleted, each with its LifecycleDeletion message."""
    for key in ("in/a.gz", "in/b", "out/c"):
        await world.bucket.put(key, b"1")
    rules = lifecycle(world, LifecycleRule("old", "in/", expire_days=2))
    await settle(world)
    world.clock.time_ms += 2 * DAY_MS - 60_000
    await rules.apply()
    assert await keys(world.bucket) == ["in/a.gz", "in/b", "out/c"]
    world.clock.time_ms += 120_000
    await rules.apply()
    assert await keys(world.bucket) == ["out/c"]
    told = await world.told()
    assert [(queue, one["action"], one["object"]) for queue, one in told] == [
        ("audit", "LifecycleDeletion", {"key": "in/a.gz"}),
        ("audit", "LifecycleDeletion", {"key": "in/b"}),
    ]
    await rules.apply()
    assert len(await world.told()) == 2


async def test_an_object_written_meanwhile_stays(world):
    """An object that is replaced after the listing is young, and is not deleted."""
    await world.bucket.put("k", b"old")
    due = (await world.bucket.head("k")).uploaded
    world.clock.time_ms += DAY_MS
    await world.bucket.put("k", b"new")
    assert await world.bucket.expire(["k", "missing"], lambda found: found.uploaded <= due) == 0
    assert await text(await world.bucket.get("k")) == b"new"


async def test_a_date_expires_everything_from_that_day_on(world):
    """Before midnight UTC nothing happens; from then on, objects of any age go."""
    tomorrow = world.clock.datetime().date() + timedelta(days=1)
    rules = lifecycle(world, LifecycleRule("end", expire_date=tomorrow))
    await world.bucket.put("k", b"1")
    await rules.apply()
    assert await keys(world.bucket) == ["k"]
    world.clock.time_ms += DAY_MS
    await world.bucket.put("young", b"1")
    await rules.apply()
    assert await keys(world.bucket) == []


async def test_objects_move_to_another_class(world):
    """Only the storage class changes; no queue is notified, and a second run changes nothing."""
    await world.bucket.put(
        "in/k.gz", b"x" * 70_000, http_metadata=HttpMetadata("text/a"), custom_metadata={"a": "b"}
    )
    before = await world.bucket.head("in/k.gz")
    await settle(world)
    rules = lifecycle(world, LifecycleRule("cold", ia_transition_days=1))
    world.clock.time_ms += DAY_MS + 60_000
    await rules.apply()
    after = await world.bucket.head("in/k.gz")
    assert after.storage_class == "InfrequentAccess"
    assert await text(await world.bucket.get("in/k.gz")) == b"x" * 70_000
    kept = ("key", "size", "etag", "checksums", "http_metadata", "custom_metadata")
    assert [getattr(after, each) for each in kept] == [getattr(before, each) for each in kept]
    assert await world.told() == []
    await rules.apply()
    assert (await world.bucket.head("in/k.gz")) == after


async def test_uploads_are_aborted(world):
    """Multipart uploads of the age and prefix are aborted, with their parts; others go on."""
    old = await world.bucket.create_multipart_upload("in/k")
    await old.upload_part(1, b"x" * MIB)
    other = await world.bucket.create_multipart_upload("out/k")
    world.clock.time_ms += DAY_MS
    young = await world.bucket.create_multipart_upload("in/k")
    await lifecycle(world, LifecycleRule("parts", "in/", abort_multipart_days=1)).apply()
    left = {each.upload_id for each in await world.bucket.uploads()}
    assert left == {other.upload_id, young.upload_id}


async def test_rules_that_are_off_do_nothing(world):
    """A rule with ``enabled = false`` deletes nothing."""
    await world.bucket.put("k", b"1")
    world.clock.time_ms += 10 * DAY_MS
    await lifecycle(world, LifecycleRule("off", enabled=False, expire_days=1)).apply()
    assert await keys(world.bucket) == ["k"]


async def test_a_clock_that_was_set_expires_nothing(world):
    """A step of the system's clock during the run is not an age."""
    await world.bucket.put("k", b"1")
    rules = lifecycle(world, LifecycleRule("old", expire_days=30))
    await rules.apply()
    world.clock.set_ahead(365 * DAY_MS)
    await rules.apply()
    assert await keys(world.bucket) == ["k"]
