"""Damaged files of a store: no damaged byte is served, and the index can be rebuilt."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from edgesim.errors import RunError
from edgesim.r2.bucket import Bucket, R2ObjectBody
from edgesim.r2.limits import PART_BYTES_MIN
from edgesim.r2.local.block_sums import BLOCK_BYTES
from edgesim.r2.local.indexed import IndexedR2
from edgesim.r2.options import Range
from tests.r2_world import Store, World, stream, text

pytestmark = pytest.mark.anyio

LONG = bytes(range(256)) * (5 * BLOCK_BYTES // 512)  # two blocks and a half


def blob_of(folder: Path) -> Path:
    [blob] = (folder / "r2" / "blobs").iterdir()
    return blob


def flip(path: Path, at: int, mask: int = 0x20) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= mask
    path.write_bytes(content)


async def served(bucket: Bucket, wanted: Range | None = None) -> bytes:
    """Return the bytes served before the read fails because of damage."""
    found = await bucket.get("a", range=wanted)
    assert isinstance(found, R2ObjectBody)
    out = b""
    try:
        async for chunk in found.body:
            out += chunk
    except RunError as error:
        assert "damaged" in str(error)  # noqa: PT017
    else:
        raise AssertionError("the read did not fail")
    return out


@pytest.mark.parametrize("at", [0, 77, BLOCK_BYTES - 1, BLOCK_BYTES, 2 * BLOCK_BYTES + 5, -1])
@pytest.mark.parametrize("mask", [0x01, 0x80])
async def test_a_damaged_object_is_not_served(tmp_path, at, mask):
    """Blocks before the damage are served, then the read fails; no damaged byte is served."""
    async with Store.file(tmp_path).open() as world:
        await world.bucket.put("a", LONG)
        flip(blob_of(tmp_path), at % len(LONG), mask)
        sent = await served(world.bucket)
        assert sent == LONG[: at % len(LONG) // BLOCK_BYTES * BLOCK_BYTES]


@pytest.mark.parametrize("size", [None, 0, 100])
async def test_an_object_whose_bytes_are_gone_is_said_to_be_damaged(tmp_path, capsys, size):
    """A read fails if the object's file is missing, empty or truncated, and the log reports it."""
    async with Store.file(tmp_path).open() as world:
        await world.bucket.put("a", LONG)
        blob = blob_of(tmp_path)
        if size is None:
            blob.unlink()
        else:
            blob.write_bytes(LONG[:size])
        with pytest.raises(RunError, match=blob.name):
            await text(await world.bucket.get("a"))
        assert "r2 object damaged" in capsys.readouterr().out


async def test_a_damaged_small_object_sends_nothing(tmp_path):
    """Nothing is served of a damaged object of one block."""
    async with Store.file(tmp_path).open() as world:
        for size in (1, 300, BLOCK_BYTES):
            await world.bucket.put("a", LONG[:size])
            flip(blob_of(tmp_path), size // 2)
            assert await served(world.bucket) == b""


@pytest.mark.parametrize(
    ("wanted", "is_hit"),
    [
        (Range(0, 10), False),
        (Range(BLOCK_BYTES + 100, 50), True),
        (Range(BLOCK_BYTES, BLOCK_BYTES), True),
        (Range(2 * BLOCK_BYTES, 1000), False),
        (Range(suffix=17), False),
        (Range(BLOCK_BYTES - 1, 2), True),
    ],
)
async def test_a_range_fails_only_where_its_blocks_are_damaged(tmp_path, wanted, is_hit):
    """A ranged read checks every block that it touches, and no others."""
    async with Store.file(tmp_path).open() as world:
        await world.bucket.put("a", LONG)
        whole = await text(await world.bucket.get("a", range=wanted))
        offset, length = wanted.resolve(len(LONG))
        assert whole == LONG[offset : offset + length]
        flip(blob_of(tmp_path), BLOCK_BYTES + 9)
        if is_hit:
            sent = await served(world.bucket, wanted)
            assert whole.startswith(sent)
        else:
            assert await text(await world.bucket.get("a", range=wanted)) == whole


async def test_an_object_in_parts_is_checked(tmp_path):
    """A damaged object of a multipart upload, which has no MD5, is not served."""
    async with Store.file(tmp_path).open() as world:
        upload = await world.bucket.create_multipart_upload("a")
        parts = [await upload.upload_part(1, b"x" * PART_BYTES_MIN)]
        parts.append(await upload.upload_part(2, b"tail"))
        await upload.complete([(part.number, part.etag) for part in parts])
        assert len(await text(await world.bucket.get("a"))) == PART_BYTES_MIN + 4
        flip(blob_of(tmp_path), PART_BYTES_MIN + 1)
        assert len(await served(world.bucket)) < PART_BYTES_MIN + 4


async def test_a_damaged_part_is_not_joined(tmp_path):
    """Completing an upload with a damaged part fails; the upload can still be completed."""
    async with Store.file(tmp_path).open() as world:
        upload = await world.bucket.create_multipart_upload("a")
        part = await upload.upload_part(1, b"0123456789")
        flip(blob_of(tmp_path), 4)
        with pytest.raises(RunError, match="damaged"):
            await upload.complete([(1, part.etag)])
        assert await world.bucket.head("a") is None
        part = await upload.upload_part(1, b"0123456789")
        await upload.complete([(1, part.etag)])
        assert await text(await world.bucket.get("a")) == b"0123456789"


async def test_an_object_of_an_earlier_version_is_checked_as_a_whole(tmp_path):
    """An object without block checksums is checked by its MD5 before the last bytes are sent."""
    async with Store.file(tmp_path).open() as world:
        await world.bucket.put("a", LONG)
        make_older(tmp_path)
    async with Store.file(tmp_path).open() as world:
        assert await text(await world.bucket.get("a")) == LONG
        flip(blob_of(tmp_path), 5)
        with pytest.raises(RunError, match="'a' is damaged"):
            await text(await world.bucket.get("a"))


def make_older(folder: Path) -> None:
    """Change the index to the tables of the first version."""
    with sqlite3.connect(folder / "r2" / "index.db") as index:
        index.executescript(
            "ALTER TABLE objects DROP COLUMN sums; ALTER TABLE parts DROP COLUMN sums;"
            "DROP TABLE usage; CREATE INDEX objects_by_size ON objects (bucket, size);"
            "PRAGMA user_version = 0;"
        )
    index.close()


async def test_an_index_of_an_earlier_version_is_brought_up(tmp_path):
    """An index of the first version is upgraded with its objects and totals."""
    async with Store.file(tmp_path).open() as world:
        await world.bucket.put("a", b"123")
        await world.other("logs").put("b", b"4")
    make_older(tmp_path)
    async with Store.file(tmp_path).open() as world:
        await world.bucket.put("c", b"56")
        assert await world.driver.usage("events") == (2, 5)
        assert await world.driver.buckets() == ["events", "logs"]
        assert await text(await world.other("logs").get("b")) == b"4"


async def fill(world: World) -> None:
    """Store objects, replace one, delete one, and begin an upload."""
    for number in range(30):
        await world.bucket.put(f"in/{number}.gz", b"%d" % number, custom_metadata={"n": "ü"})
    world.clock.time_ms += 5
    await world.bucket.put("in/7.gz", b"seven")
    await world.bucket.delete("in/8.gz")
    await world.other("logs").put("x", stream(LONG))
    upload = await world.bucket.create_multipart_upload("parts")
    await upload.upload_part(1, b"part one")


async def contents(world: World) -> dict[str, object]:
    """The store's objects, bodies and totals as a user sees them."""
    seen: dict[str, object] = {}
    for bucket in (world.bucket, world.other("logs")):
        for each in (await bucket.list(include=["customMetadata", "httpMetadata"])).objects:
            seen[f"{bucket.name}/{each.key}"] = (each, await text(await bucket.get(each.key)))
        seen[bucket.name] = await world.driver.usage(bucket.name)
    return seen


def overwrite(index: Path) -> None:
    index.write_bytes(b"not a database" * 1000)


def zero_middle(index: Path) -> None:
    content = bytearray(index.read_bytes())
    content[4096:] = bytes(len(content) - 4096)
    index.write_bytes(content)


DAMAGES = {
    "overwritten": overwrite,
    "zeroed": zero_middle,
    "empty": lambda index: index.write_bytes(b""),
    "gone": lambda index: index.unlink(),
    "header flipped": lambda index: flip(index, 3),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
async def test_a_lost_index_is_rebuilt_from_the_blobs(tmp_path, damage, capsys):
    """A lost index is rebuilt with objects, totals and uploads; notifications are sent again."""
    async with Store.file(tmp_path).open() as world:
        await fill(world)
        before = await contents(world)
        told = {body["object"]["key"] for _, body in await world.told()}
        blobs = sorted(path.name for path in (tmp_path / "r2" / "blobs").iterdir())
    damage(tmp_path / "r2" / "index.db")
    for _ in range(2):  # the second start has nothing to repair
        async with Store.file(tmp_path).open() as world:
            assert await contents(world) == before
            assert {body["object"]["key"] for _, body in await world.told()} == told - {"in/8.gz"}
            assert sorted(path.name for path in (tmp_path / "r2" / "blobs").iterdir()) == blobs
    assert capsys.readouterr().out.count("r2 index rebuilt from the blobs") == 1


async def test_a_blob_without_a_label_is_kept_when_the_index_is_rebuilt(tmp_path):
    """A blob without a label has no key; it is moved to a folder that is never cleaned."""
    async with Store.file(tmp_path).open() as world:
        await world.bucket.put("a", b"x")
    (tmp_path / "r2" / "blobs" / "older").write_bytes(b"of an earlier version")
    overwrite(tmp_path / "r2" / "index.db")
    async with Store.file(tmp_path).open() as world:
        assert await text(await world.bucket.get("a")) == b"x"
    assert (tmp_path / "r2" / "unknown" / "older").read_bytes() == b"of an earlier version"


async def test_an_entry_that_names_a_blob_wrongly_is_mended(tmp_path):
    """An entry with a wrong blob name gets its blob back; the blob is not removed as left over."""
    async with Store.file(tmp_path).open() as world:
        await world.bucket.put("a", b"precious")
    with sqlite3.connect(tmp_path / "r2" / "index.db") as index:
        index.execute("UPDATE objects SET blob = 'x' || substr(blob, 2)")
    index.close()
    async with Store.file(tmp_path).open() as world:
        assert await text(await world.bucket.get("a")) == b"precious"


async def test_a_damaged_entry_is_a_run_error(tmp_path):
    """The error for a damaged entry names the file and the cure."""
    async with Store.file(tmp_path).open() as world:
        await world.bucket.put("a", b"x")
    with sqlite3.connect(tmp_path / "r2" / "index.db") as index:
        index.execute("UPDATE objects SET object = substr(object, 3)")
    index.close()
    async with Store.file(tmp_path).open() as world:
        with pytest.raises(RunError, match=r"index\.db: damaged entry .* rebuilt"):
            await world.bucket.head("a")


def remove_journal(root: Path) -> None:
    (root / "index.db-wal").unlink()


def replace_by_copy(root: Path) -> None:
    copy = root.with_name("copy")
    shutil.copytree(root, copy)
    root.rename(root.with_name("moved"))
    copy.rename(root)


GONE = {
    "folder": shutil.rmtree,
    "index": lambda root: (root / "index.db").unlink(),
    "journal": remove_journal,
    "copy": replace_by_copy,
    "blobs": lambda root: shutil.rmtree(root / "blobs"),
}


@pytest.mark.parametrize("take", GONE.values(), ids=GONE)
async def test_a_store_that_is_deleted_or_replaced_takes_nothing(tmp_path, take):
    """No put, delete or upload is confirmed once the store's files are deleted or replaced."""
    async with Store.file(tmp_path).open() as world:
        await world.bucket.put("a", b"x")
        take(tmp_path / "r2")
        for _ in range(2):
            with pytest.raises(RunError, match=r"deleted or replaced|No such file"):
                await world.bucket.put("b", b"x")
        if take is not GONE["blobs"]:
            with pytest.raises(RunError, match="deleted or replaced"):
                await world.bucket.delete("a")
            with pytest.raises(RunError, match="deleted or replaced"):
                await world.bucket.create_multipart_upload("c")


async def test_after_a_failed_sync_the_index_is_not_used_again(tmp_path):
    """After a failed sync, the failed call and all later calls fail until a restart."""
    async with Store.file(tmp_path).open() as world:
        await world.bucket.put("a", b"x")
        assert isinstance(world.driver, IndexedR2)
        database = world.driver._database
        failure = sqlite3.OperationalError("disk I/O error")
        failure.sqlite_errorname = "SQLITE_IOERR_FSYNC"
        with pytest.raises(RunError, match="disk I/O error"), database._explained():
            raise failure
        for call in (world.bucket.put("b", b"x"), world.bucket.head("a")):
            with pytest.raises(RunError, match="disk I/O error earlier; restart edgesim"):
                await call
    async with Store.file(tmp_path).open() as world:
        assert await world.bucket.head("b") is None
        assert await text(await world.bucket.get("a")) == b"x"
