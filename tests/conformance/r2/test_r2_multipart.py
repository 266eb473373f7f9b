"""Multipart uploads, over every R2 driver.

MULTIPART is developers.cloudflare.com/r2/objects/multipart-objects; for the others see test_r2.
"""

import hashlib
from collections.abc import Sequence

import anyio
import anyio.lowlevel
import pytest

from edgesim.errors import PlatformError
from edgesim.model import HttpMetadata, Stream
from edgesim.r2.bucket import R2ObjectBody
from edgesim.r2.limits import PART_BYTES_MIN
from edgesim.r2.multipart import LIFETIME_MS, MultipartUpload
from edgesim.r2.options import Conditional, Range
from tests.r2_world import stream, text

pytestmark = pytest.mark.anyio

NO_SUCH_UPLOAD = "The specified multipart upload does not exist. (10024)"
INTERNAL = "We encountered an internal error. Please try again. (10001)"
INVALID_PART = "One or more of the specified parts could not be found. (10025)"
TOO_SMALL = "Your proposed upload is smaller than the minimum allowed object size. (10011)"
BAD_UPLOAD = "There was a problem with the multipart upload. (10048)"


def bytes_of(number: int, size: int = PART_BYTES_MIN) -> bytes:
    """Return ``size`` bytes that differ for each number."""
    return hashlib.shake_128(b"%d" % number).digest(4096) * (size // 4096) + b"x" * (size % 4096)


async def upload_parts(upload: MultipartUpload, *parts: bytes) -> list[tuple[int, str]]:
    """Upload the bodies as parts 1, 2, ... and return the argument of ``complete``."""
    return [
        (part.number, part.etag)
        for part in [await upload.upload_part(n, body) for n, body in enumerate(parts, 1)]
    ]


async def refusal(call) -> str:
    """Return the text of the call's PlatformError."""
    with pytest.raises(PlatformError) as refused:
        await call
    return refused.value.message


# --- uploading and completing ---------------------------------------------------------------------


async def test_parts_are_joined_into_an_object(bucket):
    """The object has the parts' bytes in the order of their numbers [MULTIPART]."""
    parts = [bytes_of(1), bytes_of(2), b"the end"]
    upload = await bucket.create_multipart_upload("large")
    stored = await upload.complete(await upload_parts(upload, *parts))
    assert stored.size == sum(map(len, parts))
    found = await bucket.get("large")
    assert isinstance(found, R2ObjectBody)
    assert found.object == stored == await bucket.head("large")
    assert await text(found) == b"".join(parts)


async def test_one_part_may_be_of_any_size(bucket):
    """The last part has no minimum size, also if it is the only one [MULTIPART]."""
    for body in (b"x", b""):
        upload = await bucket.create_multipart_upload("a")
        stored = await upload.complete(await upload_parts(upload, body))
        assert (stored.size, await text(await bucket.get("a"))) == (len(body), body)


async def test_the_etag_says_how_many_parts_there_were(bucket):
    """MD5 of the parts' MD5s, a dash and their number; no checksums [MINIFLARE]."""
    parts = [bytes_of(1), b"end"]
    upload = await bucket.create_multipart_upload("a")
    stored = await upload.complete(await upload_parts(upload, *parts))
    digests = b"".join(hashlib.md5(part).digest() for part in parts)
    assert stored.etag == f"{hashlib.md5(digests).hexdigest()}-2"
    assert stored.checksums == {}


async def test_a_part_s_etag_is_the_md5_of_its_bytes(bucket):
    """As in the S3 API [MULTIPART]."""
    upload = await bucket.create_multipart_upload("a")
    part = await upload.upload_part(7, b"part")
    assert (part.number, part.size, part.etag) == (7, 4, hashlib.md5(b"part").hexdigest())


async def test_the_metadata_is_given_at_the_beginning(bucket):
    """HTTP and custom metadata and the storage class are set on creation [API]."""
    http, custom = HttpMetadata("text/plain", content_language="de"), {"Größe": "☃"}
    upload = await bucket.create_multipart_upload(
        "a", http_metadata=http, custom_metadata=custom, storage_class="InfrequentAccess"
    )
    await upload.complete(await upload_parts(upload, b"x"))
    found = await bucket.head("a")
    assert (found.http_metadata, found.custom_metadata) == (http, custom)
    assert found.storage_class == "InfrequentAccess"
    assert len(found.version) == 32


async def test_parts_come_in_any_order_and_at_once(bucket):
    """Neither the order of the uploads nor that of the list matters [MULTIPART]."""
    bodies = {1: bytes_of(1), 2: bytes_of(2), 3: b"end"}
    upload = await bucket.create_multipart_upload("a")
    parts: list[tuple[int, str]] = []

    async def put(number: int) -> None:
        part = await upload.upload_part(number, stream(bodies[number]))
        parts.append((part.number, part.etag))

    async with anyio.create_task_group() as group:
        for number in (2, 3, 1):
            group.start_soon(put, number)
    in_argument_order = sorted(parts, key=lambda part: (part[0] == 3, -part[0]))
    await upload.complete(in_argument_order)
    assert await text(await bucket.get("a")) == b"".join(bodies[n] for n in (1, 2, 3))


async def test_numbers_may_have_gaps(bucket):
    """Only the order of the numbers matters, from 1 to 10,000 [API]."""
    upload = await bucket.create_multipart_upload("a")
    first = await upload.upload_part(3, bytes_of(3))
    last = await upload.upload_part(10_000, b"end")
    await upload.complete([(3, first.etag), (10_000, last.etag)])
    assert await text(await bucket.get("a")) == bytes_of(3) + b"end"


async def test_a_part_that_is_sent_again_replaces_the_first(bucket):
    """The last part uploaded under a number replaces the earlier ones [API]."""
    for attempt in range(5):
        upload = await bucket.create_multipart_upload(f"{attempt}")
        await upload.upload_part(1, b"first")
        second = await upload.upload_part(1, b"second")
        await upload.complete([(1, second.etag)])
        assert await text(await bucket.get(f"{attempt}")) == b"second"


@pytest.mark.parametrize("store", ["memory", "file"], indirect=True)
async def test_a_part_that_was_replaced_is_none_any_more(bucket):
    """The replaced part's etag is refused (SeaweedFS accepts it: it keeps every part) [API]."""
    upload = await bucket.create_multipart_upload("a")
    first = await upload.upload_part(1, b"first")
    await upload.upload_part(1, b"second")
    assert await refusal(upload.complete([(1, first.etag)])) == (
        f"completeMultipartUpload: {INVALID_PART}"
    )


async def test_parts_that_are_left_out_are_not_in_the_object(bucket):
    """The list passed to complete decides [MULTIPART]."""
    upload = await bucket.create_multipart_upload("a")
    parts = await upload_parts(upload, bytes_of(1), bytes_of(2), b"end")
    await upload.complete([parts[0], parts[2]])
    assert await text(await bucket.get("a")) == bytes_of(1) + b"end"


async def test_ranges_go_across_parts(bucket):
    """A range may span parts [API]."""
    whole = bytes_of(1) + bytes_of(2) + b"the end"
    upload = await bucket.create_multipart_upload("a")
    await upload.complete(await upload_parts(upload, bytes_of(1), bytes_of(2), b"the end"))
    for asked, part in {
        Range(PART_BYTES_MIN - 5, 10): whole[PART_BYTES_MIN - 5 : PART_BYTES_MIN + 5],
        Range(suffix=7): b"the end",
        Range(2 * PART_BYTES_MIN - 1): b"" + whole[2 * PART_BYTES_MIN - 1 :],
    }.items():
        assert await text(await bucket.get("a", range=asked)) == part


async def test_an_upload_is_resumed_by_key_and_id(durable):
    """Another Worker, or a reopened store, continues the upload [API]."""
    async with durable.open() as world:
        upload = await world.bucket.create_multipart_upload("a")
        first = await upload.upload_part(1, bytes_of(1))
    async with durable.open() as world:
        resumed = world.bucket.resume_multipart_upload("a", upload.upload_id)
        last = await resumed.upload_part(2, b"end")
        await resumed.complete([(1, first.etag), (2, last.etag)])
        assert await text(await world.bucket.get("a")) == bytes_of(1) + b"end"


async def test_nothing_shows_before_the_end(bucket):
    """Before completion there is no object, or the previous one stays [CONSISTENCY]."""
    await bucket.put("old", b"old")
    for key in ("old", "new"):
        upload = await bucket.create_multipart_upload(key)
        await upload.upload_part(1, b"part")
    assert await text(await bucket.get("old")) == b"old"
    assert await bucket.head("new") is None
    assert [one.key for one in (await bucket.list()).objects] == ["old"]


async def test_a_completed_upload_replaces_the_object_of_its_key(bucket):
    """The last write wins, put or upload; a reader of the old object continues [CONSISTENCY]."""
    await bucket.put("a", b"old" * 100_000, custom_metadata={"old": "1"})
    reading = await bucket.get("a")
    upload = await bucket.create_multipart_upload("a")
    await upload.complete(await upload_parts(upload, b"new"))
    assert await text(reading) == b"old" * 100_000
    found = await bucket.get("a")
    assert (await text(found), found.object.custom_metadata) == (b"new", {})
    await bucket.put("a", b"newer")
    assert await text(await bucket.get("a")) == b"newer"
    await bucket.delete("a")
    assert await bucket.head("a") is None


async def test_an_object_of_parts_meets_conditions(bucket):
    """Its etag, with the dash, is compared like any other [API]."""
    upload = await bucket.create_multipart_upload("a")
    stored = await upload.complete(await upload_parts(upload, b"x"))
    assert await bucket.put("a", b"y", only_if=Conditional(etag_matches=("other-1",))) is None
    assert await bucket.put("a", b"y", only_if=Conditional(etag_matches=(stored.etag,)))


async def test_two_uploads_of_one_key_are_two(bucket):
    """Each has its own parts; the one completed last is the object [MULTIPART]."""
    one, other = [await bucket.create_multipart_upload("a") for _ in range(2)]
    ones, others = await upload_parts(one, b"one"), await upload_parts(other, b"other")
    assert one.upload_id != other.upload_id
    await other.complete(others)
    await one.complete(ones)
    assert await text(await bucket.get("a")) == b"one"


async def test_a_hostile_key_is_just_a_name_here_too(bucket):
    """Parts and objects of any key stay in the store and separate [LIMITS]."""
    keys = ["../../x", "/", "a//b", "nul\0", "k" * 1024, "d/" * 500 + "file"]
    for key in keys:
        upload = await bucket.create_multipart_upload(key)
        await upload.complete(await upload_parts(upload, key.encode()))
    assert [one.key for one in (await bucket.list()).objects] == sorted(keys, key=str.encode)
    for key in keys:
        assert await text(await bucket.get(key)) == key.encode()


# --- aborting -------------------------------------------------------------------------------------


async def test_an_aborted_upload_is_gone(bucket):
    """It accepts no part, cannot be completed, and may be aborted again [MINIFLARE]."""
    upload = await bucket.create_multipart_upload("a")
    parts = await upload_parts(upload, b"x")
    await upload.abort()
    await upload.abort()
    assert await refusal(upload.upload_part(2, b"x")) == f"uploadPart: {NO_SUCH_UPLOAD}"
    assert await refusal(upload.complete(parts)) == f"completeMultipartUpload: {NO_SUCH_UPLOAD}"
    assert await bucket.head("a") is None


async def test_a_completed_upload_is_over(bucket):
    """Aborting it has no effect; parts and another complete are refused [MINIFLARE]."""
    upload = await bucket.create_multipart_upload("a")
    parts = await upload_parts(upload, b"x")
    await upload.complete(parts)
    await upload.abort()
    assert await text(await bucket.get("a")) == b"x"
    assert await refusal(upload.upload_part(1, b"y")) == f"uploadPart: {NO_SUCH_UPLOAD}"
    assert await refusal(upload.complete(parts)) == f"completeMultipartUpload: {NO_SUCH_UPLOAD}"


async def test_after_seven_days_an_upload_is_over(world):
    """It expires after seven days, not a millisecond earlier [MULTIPART]."""
    bucket = world.bucket
    upload = await bucket.create_multipart_upload("a")
    world.clock.time_ms += LIFETIME_MS - 1
    parts = await upload_parts(upload, b"x")
    world.clock.time_ms += 1
    assert await refusal(upload.upload_part(1, b"x")) == f"uploadPart: {NO_SUCH_UPLOAD}"
    assert await refusal(upload.complete(parts)) == f"completeMultipartUpload: {NO_SUCH_UPLOAD}"
    await upload.abort()


@pytest.mark.parametrize("step_days", [8, 3650])
async def test_a_clock_that_is_set_expires_no_upload(world, step_days):
    """Seven days of elapsed time count, not a step of the clock."""
    clock, bucket = world.clock, world.bucket
    upload = await bucket.create_multipart_upload("a")
    clock.set_ahead(step_days * 24 * 3600 * 1000)
    later = await bucket.create_multipart_upload("b")
    parts = await upload_parts(upload, b"x")
    clock.time_ms += LIFETIME_MS - 1
    assert await upload.complete(parts)
    parts = await upload_parts(later, b"x")
    clock.time_ms += 1
    assert await refusal(later.complete(parts)) == f"completeMultipartUpload: {NO_SUCH_UPLOAD}"


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("upload_id", ["", "no such upload", "MTk5", "é", "\ud800"])
async def test_an_id_that_no_bucket_gave(bucket, upload_id):
    """10024 for a part, 10001 for complete and abort [MINIFLARE]."""
    upload = bucket.resume_multipart_upload("a", upload_id)
    assert await refusal(upload.upload_part(1, b"x")) == f"uploadPart: {NO_SUCH_UPLOAD}"
    assert await refusal(upload.complete([(1, "e")])) == f"completeMultipartUpload: {INTERNAL}"
    assert await refusal(upload.abort()) == f"abortMultipartUpload: {INTERNAL}"


async def test_an_upload_belongs_to_its_key_and_bucket(world):
    """With another key, or in another bucket, the id is unknown [MINIFLARE]."""
    upload = await world.bucket.create_multipart_upload("a")
    part = await upload.upload_part(1, b"x")
    for stranger in (
        world.bucket.resume_multipart_upload("b", upload.upload_id),
        world.other("other-bucket").resume_multipart_upload("a", upload.upload_id),
    ):
        assert await refusal(stranger.upload_part(1, b"y")) == f"uploadPart: {NO_SUCH_UPLOAD}"
        assert await refusal(stranger.complete([(1, part.etag)])) == (
            f"completeMultipartUpload: {NO_SUCH_UPLOAD}"
        )
        await stranger.abort()
    await upload.complete([(1, part.etag)])


@pytest.mark.parametrize("number", [0, -1, 10_001])
async def test_part_numbers_have_limits(bucket, number):
    """From 1 to 10,000, in an upload and in complete [WORKERD]."""
    upload = await bucket.create_multipart_upload("a")
    for call in (upload.upload_part(number, b"x"), upload.complete([(number, "etag")])):
        with pytest.raises(PlatformError) as refused:
            await call
        assert (refused.value.name, refused.value.message) == (
            "TypeError",
            f"Part number must be between 1 and 10000 (inclusive). Actual value was: {number}",
        )


@pytest.mark.parametrize(
    "named", [[(2, "etag")], [(1, "0" * 32)], [(1, "right"), (2, "0" * 32)], []]
)
async def test_parts_that_are_not_there_are_refused(bucket, named):
    """An unknown number, a wrong etag, or none: 10025 [MINIFLARE]."""
    upload = await bucket.create_multipart_upload("a")
    part = await upload.upload_part(1, bytes_of(1))
    parts = [(number, part.etag if etag == "right" else etag) for number, etag in named]
    assert await refusal(upload.complete(parts)) == f"completeMultipartUpload: {INVALID_PART}"
    await upload.complete([(1, part.etag)])


async def test_a_part_named_twice_is_an_internal_error(bucket):
    """10001, as on the platform [MINIFLARE]."""
    upload = await bucket.create_multipart_upload("a")
    part = await upload.upload_part(1, bytes_of(1))
    twice = [(1, part.etag)] * 2
    assert await refusal(upload.complete(twice)) == f"completeMultipartUpload: {INTERNAL}"


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([PART_BYTES_MIN - 1, 1], TOO_SMALL),
        ([PART_BYTES_MIN, PART_BYTES_MIN + 1, 1], BAD_UPLOAD),
        ([PART_BYTES_MIN, PART_BYTES_MIN + 1], BAD_UPLOAD),
    ],
)
async def test_parts_must_be_large_and_even(bucket, sizes, message):
    """5 MiB at least (10011), all of one size, and the last not the largest (10048) [MULTIPART]."""
    upload = await bucket.create_multipart_upload("a")
    parts = await upload_parts(upload, *(b"x" * size for size in sizes))
    assert await refusal(upload.complete(parts)) == f"completeMultipartUpload: {message}"
    assert await bucket.head("a") is None


async def test_a_small_part_named_last_is_found_by_its_number(bucket):
    """Parts are checked in the order of the list, then by number [MINIFLARE]."""
    upload = await bucket.create_multipart_upload("a")
    parts = await upload_parts(upload, b"small", bytes_of(2))
    assert await refusal(upload.complete(parts[::-1])) == f"completeMultipartUpload: {BAD_UPLOAD}"


async def test_the_beginning_is_checked_like_a_put(bucket):
    """Keys, metadata and the storage class have the same limits [LIMITS]."""
    create = bucket.create_multipart_upload
    assert await refusal(create("")) == (
        "createMultipartUpload: The specified object name is not valid. (10020)"
    )
    assert (await refusal(create("a", custom_metadata={"k": "v" * 8192}))).startswith(
        "createMultipartUpload: Your metadata headers exceed"
    )
    assert "Glacier" in await refusal(create("a", storage_class="Glacier"))


async def test_a_part_over_the_limit_of_one_put_is_refused(bucket):
    """A part of 5 GiB is refused too [LIMITS]."""
    upload = await bucket.create_multipart_upload("a")
    assert await refusal(upload.upload_part(1, stream(b"", length=5 * 1024**3))) == (
        "uploadPart: Your proposed upload exceeds the maximum allowed object size. (100100)"
    )


@pytest.mark.parametrize("length", [2, 4])
async def test_a_part_s_stream_must_keep_its_announced_length(bucket, length):
    """More or fewer bytes are refused, and the previous part stays [WORKERD]."""
    upload = await bucket.create_multipart_upload("a")
    part = await upload.upload_part(1, b"before")
    assert "FixedLengthStream" in await refusal(
        upload.upload_part(1, stream(b"abc", length=length))
    )
    await upload.complete([(1, part.etag)])
    assert await text(await bucket.get("a")) == b"before"


async def test_a_part_that_breaks_off_is_none(bucket):
    """A stream that raises leaves the upload unchanged [CONSISTENCY]."""

    async def broken():
        yield b"ne"
        raise ConnectionResetError("the client went away")

    upload = await bucket.create_multipart_upload("a")
    part = await upload.upload_part(1, b"before")
    with pytest.raises(ConnectionResetError):
        await upload.upload_part(1, Stream(broken(), 3))
    await upload.complete([(1, part.etag)])
    assert await text(await bucket.get("a")) == b"before"


async def test_a_part_that_comes_too_late_is_refused(bucket):
    """A part still uploading when the upload is completed is stored nowhere [MULTIPART]."""
    upload = await bucket.create_multipart_upload("a")
    parts = await upload_parts(upload, b"in time")
    completed = anyio.Event()

    async def slow():
        yield b"too "
        await completed.wait()
        yield b"late"

    async def late() -> None:
        assert await refusal(upload.upload_part(1, Stream(slow(), 8))) == (
            f"uploadPart: {NO_SUCH_UPLOAD}"
        )

    async with anyio.create_task_group() as group:
        group.start_soon(late)
        await anyio.wait_all_tasks_blocked()
        await upload.complete(parts)
        completed.set()
    assert await text(await bucket.get("a")) == b"in time"


# --- notifications --------------------------------------------------------------------------------


async def test_a_completed_upload_is_told(world):
    """CompleteMultipartUpload with size and etag; nothing for the parts before it [EVENTS]."""
    upload = await world.bucket.create_multipart_upload("in/a.gz")
    parts = await upload_parts(upload, bytes_of(1), b"end")
    assert await world.told() == []
    stored = await upload.complete(parts)
    ((queue, message),) = await world.told()
    assert queue == "ingest"
    assert message["action"] == "CompleteMultipartUpload"
    assert message["object"] == {"key": "in/a.gz", "size": stored.size, "eTag": stored.etag}


async def test_an_upload_that_fails_is_not_told(world):
    """A refused complete or an abort creates no notification [EVENTS]."""
    upload = await world.bucket.create_multipart_upload("in/a.gz")
    await upload.upload_part(1, b"x")
    await refusal(upload.complete([(1, "0" * 32)]))
    await upload.abort()
    assert await world.told() == []


async def test_of_two_who_complete_one_wins(world):
    """An upload is completed once, and notified once [CONSISTENCY]."""
    upload = await world.bucket.create_multipart_upload("in/a.gz")
    parts = await upload_parts(upload, bytes_of(1), b"end")
    results: list[Sequence[object]] = []

    async def complete() -> None:
        try:
            results.append(("stored", await upload.complete(parts)))
        except PlatformError as error:
            results.append(("refused", error.message))

    async with anyio.create_task_group() as group:
        group.start_soon(complete)
        group.start_soon(complete)
    assert sorted(str(kind) for kind, _ in results) == ["refused", "stored"]
    assert len(await world.told()) == 1


# --- lists of uploads and parts -------------------------------------------------------------------


async def test_uploads_in_progress_are_listed(bucket):
    """They are ordered by key and start, with their own ids; finished ones are not listed."""
    first = await bucket.create_multipart_upload("b/2", storage_class="InfrequentAccess")
    second = await bucket.create_multipart_upload("b/1")
    done = await bucket.create_multipart_upload("b/3")
    dropped = await bucket.create_multipart_upload("b/4")
    await done.complete(await upload_parts(done, b"x"))
    await dropped.abort()
    found = await bucket.uploads()
    assert [(each.key, each.upload_id) for each in found] == [
        ("b/1", second.upload_id),
        ("b/2", first.upload_id),
    ]
    assert [each.storage_class for each in found] == ["Standard", "InfrequentAccess"]
    assert await bucket.uploads("b/2") == found[1:]
    assert await bucket.uploads("c") == []


async def test_expired_uploads_are_not_listed(world):
    """An upload of more than seven days is gone, whatever the store keeps."""
    await world.bucket.create_multipart_upload("k")
    world.clock.time_ms += LIFETIME_MS
    assert await world.bucket.uploads() == []


async def test_the_parts_of_an_upload_are_listed(bucket):
    """They are ordered by number."""
    upload = await bucket.create_multipart_upload("k")
    uploaded = [await upload.upload_part(n, b"x" * n) for n in (3, 1)]
    assert await upload.parts() == uploaded[::-1]
    await upload.abort()
    assert await refusal(upload.parts()) == f"listParts: {NO_SUCH_UPLOAD}"
