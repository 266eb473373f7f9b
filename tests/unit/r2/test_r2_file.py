"""The file driver: files on disk, crashes and full disks."""

import resource
import sqlite3
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgesim.clock import Clock
from edgesim.errors import ConfigError, RunError, UsageError
from edgesim.model import Stream
from edgesim.r2.bucket import R2ObjectBody
from edgesim.r2.limits import PART_BYTES_MIN
from edgesim.r2.local.file import open_r2
from edgesim.r2.multipart import LIFETIME_MS
from tests.r2_world import Store, World, text

pytestmark = pytest.mark.anyio

HOSTILE_KEYS = ["../../x", "/etc/passwd", "..", "nul\0nul", "k" * 1024, "😀", "a\nb", "../r2x"]


def blobs(folder: Path) -> list[Path]:
    """The files that hold the bytes of objects."""
    return sorted((folder / "r2" / "blobs").iterdir())


async def test_hostile_keys_touch_nothing_outside_the_root(tmp_path):
    """Files are created only under the root and are never named by the key."""
    (tmp_path / "x").write_text("precious")
    async with Store.file(tmp_path).open() as world:
        for key in HOSTILE_KEYS:
            await world.bucket.put(key, b"evil")
            assert await text(await world.bucket.get(key)) == b"evil"
        names = [path.name for path in blobs(tmp_path)]
        await world.bucket.delete(HOSTILE_KEYS)
    assert len(names) == len(HOSTILE_KEYS)
    assert all(len(name) == 32 and name.isalnum() for name in names)
    assert (tmp_path / "x").read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"r2", "x"}
    assert {path.name for path in (tmp_path / "r2").iterdir()} == {"blobs", "index.db", "lock"}


async def test_replaced_and_deleted_objects_leave_no_files(tmp_path):
    """The file of a replaced or deleted object is removed."""
    async with Store.file(tmp_path).open() as world:
        await world.bucket.put("a", b"1")
        await world.bucket.put("a", b"2")
        assert len(blobs(tmp_path)) == 1
        await world.bucket.delete("a")
        assert blobs(tmp_path) == []


async def test_a_failed_put_leaves_no_file(tmp_path):
    """A put whose body fails leaves no file."""

    async def broken():
        yield b"x" * 1000
        raise ConnectionResetError

    async with Store.file(tmp_path).open() as world:
        with pytest.raises(ConnectionResetError):
            await world.bucket.put("a", Stream(broken(), 2000))
        assert blobs(tmp_path) == []


async def test_a_large_reader_outlives_its_object(tmp_path):
    """A reader gets the whole object although it is overwritten and deleted meanwhile."""
    data = bytes(range(256)) * 20_000
    async with Store.file(tmp_path).open() as world:
        await world.bucket.put("a", data)
        found = await world.bucket.get("a")
        assert isinstance(found, R2ObjectBody)
        head = await found.body.read()
        await world.bucket.put("a", b"new")
        await world.bucket.delete("a")
        assert 0 < len(head) < len(data)
        assert head + await text(found) == data


async def test_what_a_crash_left_behind_is_removed(tmp_path):
    """A start removes blobs that no object refers to, and keeps the others."""
    async with Store.file(tmp_path).open() as world:
        await world.bucket.put("a", b"x")
    (tmp_path / "r2" / "blobs" / "half").write_bytes(b"half an object")
    async with Store.file(tmp_path).open() as world:
        assert await text(await world.bucket.get("a")) == b"x"
        assert len(blobs(tmp_path)) == 1


PUT_FOREVER = """
import anyio, itertools, sys
from pathlib import Path
from tests.r2_world import Store

async def main():
    async with Store.file(Path(sys.argv[1])).open() as world:
        for number in itertools.count():
            await world.bucket.put(f"in/{number}.gz", b"x" * 50_000)
            await world.bucket.put("again", str(number).encode())
            print(number, flush=True)

anyio.run(main)
"""


def killed_amid_puts(folder: Path, program: str = PUT_FOREVER) -> int:
    """Put objects in another process and kill it; return the last acknowledged number."""
    command = [sys.executable, "-c", program, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(40):
            last = int(process.stdout.readline())
        process.kill()
    return last


async def test_nothing_that_was_acknowledged_dies_with_the_process(tmp_path):
    """After kill -9 every acknowledged object is whole and notified, and no blob is left over."""
    last = killed_amid_puts(tmp_path)
    async with Store.file(tmp_path).open() as world:
        for number in range(last + 1):
            assert await text(await world.bucket.get(f"in/{number}.gz")) == b"x" * 50_000
        assert int(await text(await world.bucket.get("again"))) >= last
        objects, _ = await world.driver.usage("events")
        told = [message["object"]["key"] for _, message in await world.told()]
        assert told == [f"in/{number}.gz" for number in range(objects - 1)]
        assert len(blobs(tmp_path)) == objects


JOIN_FOREVER = """
import anyio, itertools, sys
from pathlib import Path
from tests.r2_world import Store

async def main():
    async with Store.file(Path(sys.argv[1])).open() as world:
        for number in itertools.count():
            upload = await world.bucket.create_multipart_upload(f"in/{number}.gz")
            part = await upload.upload_part(1, b"x" * 50_000)
            await upload.complete([(1, part.etag)])
            print(number, flush=True)

anyio.run(main)
"""


async def test_no_upload_that_was_completed_dies_with_the_process(tmp_path):
    """After kill -9 each object is whole and notified once; at most one upload leaves a part."""
    last = killed_amid_puts(tmp_path, JOIN_FOREVER)
    async with Store.file(tmp_path).open() as world:
        objects, _ = await world.driver.usage("events")
        assert objects >= last + 1
        for number in range(objects):
            assert await text(await world.bucket.get(f"in/{number}.gz")) == b"x" * 50_000
        told = [message["object"]["key"] for _, message in await world.told()]
        assert told == [f"in/{number}.gz" for number in range(objects)]
        assert len(blobs(tmp_path)) - objects in {0, 1}
        world.clock.time_ms += LIFETIME_MS + 1
        await world.bucket.create_multipart_upload("a")
        assert len(blobs(tmp_path)) == objects


async def test_parts_leave_no_files(tmp_path):
    """The blobs of replaced, omitted, aborted and completed parts are removed."""
    async with Store.file(tmp_path).open() as world:
        upload = await world.bucket.create_multipart_upload("a")
        for body in (b"1", b"2"):
            part = await upload.upload_part(1, body)
        await upload.upload_part(2, b"left out")
        assert len(blobs(tmp_path)) == 2
        await upload.complete([(1, part.etag)])
        assert len(blobs(tmp_path)) == 1
        other = await world.bucket.create_multipart_upload("a")
        await other.upload_part(1, b"x")
        await other.abort()
        assert len(blobs(tmp_path)) == 1


async def test_a_full_disk_leaves_an_upload_as_it_was(tmp_path):
    """A full disk leaves no partial part or object; with room the upload can be completed."""
    async with Store.file(tmp_path).open() as world:
        upload = await world.bucket.create_multipart_upload("a")
        parts = [await upload.upload_part(n, bytes(PART_BYTES_MIN)) for n in (1, 2)]
        with files_of_at_most(1_000_000), pytest.raises(RunError, match="File too large"):
            await upload.upload_part(3, b"x" * 2_000_000)
        named = [(part.number, part.etag) for part in parts]
        with files_of_at_most(PART_BYTES_MIN + 1), pytest.raises(RunError, match="File too large"):
            await upload.complete(named)
        assert await world.bucket.head("a") is None
        assert len(blobs(tmp_path)) == 2
        assert (await upload.complete(named)).size == 2 * PART_BYTES_MIN
        assert len(blobs(tmp_path)) == 1


async def test_the_store_belongs_to_one_process(tmp_path):
    """A second process is refused with one line; the first is not affected."""
    async with Store.file(tmp_path).open() as world:
        with pytest.raises(UsageError, match="is in use by another edgesim process"):
            async with Store.file(tmp_path).open():
                pass
        await world.bucket.put("a", b"x")
    async with Store.file(tmp_path).open() as world:
        assert await world.bucket.head("a")


@contextmanager
def files_of_at_most(size: int):
    """Limit the size of files to ``size`` bytes, to simulate a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_is_a_run_error_and_loses_nothing(tmp_path):
    """On a full disk a put fails with its cause; the old object stays and no file is left over."""
    async with Store.file(tmp_path).open() as world:
        await world.bucket.put("a", b"old")
        with files_of_at_most(1_000_000), pytest.raises(RunError, match="File too large") as failed:
            await world.bucket.put("a", b"x" * 5_000_000)
        assert isinstance(failed.value.__cause__, OSError)
        assert len(blobs(tmp_path)) == 1
        assert await text(await world.bucket.get("a")) == b"old"
        await world.bucket.put("a", b"x" * 5_000_000)


async def test_a_full_index_is_a_run_error_and_loses_nothing(tmp_path):
    """If the index cannot grow, neither the object nor its notification is stored."""
    async with Store.file(tmp_path).open() as world:
        with files_of_at_most(4096), pytest.raises(RunError) as failed:
            await world.bucket.put("in/a.gz", b"x", custom_metadata={"k": "v" * 8000})
        assert isinstance(failed.value.__cause__, sqlite3.Error)
        assert await world.bucket.head("in/a.gz") is None
        assert await world.told() == []
        assert blobs(tmp_path) == []
        await world.bucket.put("in/a.gz", b"x")
        assert len(await world.told()) == 1


async def test_damage_is_told_and_not_served(tmp_path):
    """A missing or truncated blob is an error, never a short object."""
    async with Store.file(tmp_path).open() as world:
        await world.bucket.put("a", b"0123456789")
        (blob,) = blobs(tmp_path)
        blob.write_bytes(b"0123")
        with pytest.raises(RunError, match="cut short, 6 bytes are missing"):
            await text(await world.bucket.get("a"))
        blob.unlink()
        with pytest.raises(RunError, match="No such file"):
            await world.bucket.get("a")


async def test_a_state_that_is_no_database_is_a_run_error(tmp_path):
    """The error for an index that is no database names the file."""
    (tmp_path / "r2").mkdir()
    (tmp_path / "r2" / "index.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(RunError, match=r"index\.db: file is not a database"):
        async with Store.file(tmp_path).open():
            pass


async def test_a_root_that_cannot_be_made_is_a_run_error(tmp_path):
    """A root that is a file is an error."""
    (tmp_path / "r2").write_text("a file")
    with pytest.raises(RunError, match="Not a directory"):
        async with Store.file(tmp_path).open():
            pass


async def test_a_url_without_a_path_is_refused(tmp_path):
    """A URL without a path is refused; it would use the working directory."""
    with pytest.raises(ConfigError, match="write file:PATH"):
        async with open_r2("file:", Clock(), tmp_path):
            pass


async def test_an_idle_bucket_keeps_no_locks():
    """Keys hold no locks after their writes."""

    def locks(world: World) -> int:
        return len(world.bucket._locks)

    async with Store.memory().open() as world:
        for number in range(20):
            await world.bucket.put(str(number), b"")
        await world.bucket.delete([str(number) for number in range(20)])
        assert locks(world) == 0
