"""Memory use with large objects, measured for each driver in its own process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.r2_world import Store
from tests.servers_s3 import seaweedfs

MEGABYTE = 1 << 20

# Prints the growth of the process and the number of bytes it read.
PROGRAM = """
import anyio, json, os, resource, sqlite3, sys
from pathlib import Path
from edgesim.model import Stream
from tests.r2_world import Store

MEGABYTE = 1 << 20
url, state, keys, megabytes, sparse_gigabytes = json.loads(sys.argv[1])

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

async def body(size):
    for _ in range(size // MEGABYTE):
        yield os.urandom(16) * (MEGABYTE // 16)

async def put(bucket, key, size):
    return await bucket.put(key, Stream(body(size), size))

async def count(bucket, key):
    found = await bucket.get(key)
    return sum([len(chunk) async for chunk in found.body])

def stretch(folder, stored, size):
    # A sparse file: as long as it says, and no bytes on the disk.
    index = sqlite3.connect(folder / "index.db")
    told = json.dumps({"key": stored.key, "version": stored.version, "size": size,
                       "etag": stored.etag, "uploaded": stored.uploaded}).encode()
    ((blob,),) = index.execute("SELECT blob FROM objects WHERE key = ?", (stored.key.encode(),))
    index.execute("UPDATE objects SET size = ?, object = ? WHERE blob = ?", (size, told, blob))
    index.commit()
    index.close()
    os.truncate(folder / "blobs" / blob, size)

async def main():
    async with Store(url, Path(state), keys).open() as world:
        await put(world.bucket, "warm", 16 * MEGABYTE)
        await count(world.bucket, "warm")
        before = peak()
        stored = await put(world.bucket, "large", megabytes * MEGABYTE)
        read = await count(world.bucket, "large")
        if sparse_gigabytes:
            stretch(Path(url.partition(":")[2]), stored, sparse_gigabytes << 30)
            read += await count(world.bucket, "large")
        print(json.dumps([peak() - before, read]))

anyio.run(main)
"""


def measured(store: Store, megabytes: int, sparse_gigabytes: int = 0) -> tuple[int, int]:
    """Put and get an object of that size in a process; return its growth and the bytes read."""
    arguments = [store.url, str(store.state), store.keys, megabytes, sparse_gigabytes]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(arguments)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    growth, read = json.loads(done.stdout)
    return growth, read


def test_files_of_gigabytes_pass_in_constant_memory(tmp_path):
    """96 MB in and out, and 2 GB out of a sparse file, grow the process by less than 16 MB."""
    growth, read = measured(Store.file(tmp_path), 96, sparse_gigabytes=2)
    assert read == 96 * MEGABYTE + (2 << 30)
    assert growth < 16 * MEGABYTE


@pytest.mark.s3_server
def test_objects_pass_to_and_from_a_server_in_constant_memory(tmp_path):
    """64 MB in one request and back grow the process by less than 16 MB."""
    with seaweedfs(tmp_path) as server:
        growth, read = measured(Store.s3(server, tmp_path / "own"), 64)
    assert read == 64 * MEGABYTE
    assert growth < 16 * MEGABYTE
