"""The S3 driver while a real server is killed, frozen or restarted, or revokes the keys."""

import json
import resource
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from edgesim.errors import RunError
from edgesim.model import Stream
from edgesim.r2.bucket import R2ObjectBody
from tests.r2_world import Store, World, chunks, eventually, text
from tests.servers_s3 import seaweedfs_process

pytestmark = [pytest.mark.anyio, pytest.mark.s3_server]

TIMEOUT = 3
# A request fails within twice the timeout; a call makes a few of them.
PATIENCE = 20
FORMS = ("", "-parts")


@pytest.fixture(scope="module")
def seaweed(tmp_path_factory):
    """A server that tests kill and freeze; each test leaves it running."""
    with seaweedfs_process(tmp_path_factory.mktemp("seaweedfs")) as process:
        yield process


@pytest.fixture
async def world(seaweed, tmp_path):
    """A bucket on the server, with a short timeout."""
    async with Store.s3(seaweed.server, tmp_path, f"&timeout={TIMEOUT}").open() as world:
        yield world


CALLS: dict[str, Callable[[World], Awaitable[object]]] = {
    "put": lambda world: world.bucket.put("in/b.gz", b"x"),
    "get": lambda world: world.bucket.get("in/a.gz"),
    "head": lambda world: world.bucket.head("in/a.gz"),
    "list": lambda world: world.bucket.list(),
    "delete": lambda world: world.bucket.delete("in/a.gz"),
    "upload": lambda world: world.bucket.create_multipart_upload("in/c.gz"),
    "usage": lambda world: world.driver.usage("events"),
    "buckets": lambda world: world.driver.buckets(),
}


async def all_fail(world: World) -> dict[str, str]:
    """Assert that every call fails in time with one line; return the messages by call."""
    failures: dict[str, str] = {}

    async def fail(name: str) -> None:
        with pytest.raises(RunError) as failed:
            await CALLS[name](world)
        failures[name] = str(failed.value)

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            for name in CALLS:
                group.start_soon(fail, name)
    assert all("\n" not in failure for failure in failures.values())
    return failures


async def store(world: World, data: bytes) -> None:
    """Put in/a.gz; again if the server does not answer in time, as on a busy machine."""

    async def stored() -> bool:
        return await world.bucket.put("in/a.gz", data) is not None

    assert await eventually(stored)


async def works_again(world: World) -> None:
    """Assert that the store works within some seconds without intervention."""

    async def works() -> bool:
        await world.bucket.put("in/again.gz", b"again")
        return await text(await world.bucket.get("in/again.gz")) == b"again"

    assert await eventually(works)


async def told(world: World) -> set[str]:
    """The keys of all notified puts, once no write is in doubt."""

    async def known() -> list[Any]:
        entries = await world.told()
        return [] if world.driver._doubts.fresh() else entries  # type: ignore[attr-defined]

    return {
        message["object"]["key"] for queue, message in await eventually(known) if queue == "ingest"
    }


async def test_a_killed_server_is_an_error_and_comes_back(world, seaweed):
    """Calls to a killed server fail with one line; after its restart all objects are there."""
    await store(world, b"before")
    seaweed.kill()
    failures = await all_fail(world)
    assert all("Cannot connect" in failure for failure in failures.values()), failures
    seaweed.spawn()
    await works_again(world)
    assert await text(await world.bucket.get("in/a.gz")) == b"before"
    assert await told(world) == {"in/a.gz", "in/again.gz"}


async def test_a_frozen_server_is_an_error_and_comes_back(world, seaweed):
    """Calls to a frozen server time out; puts that it performs later are notified."""
    await store(world, b"before")
    seaweed.freeze()
    failures = await all_fail(world)
    assert all(f"within {TIMEOUT} second" in failure for failure in failures.values()), failures
    seaweed.thaw()
    await works_again(world)
    keys = await told(world)
    assert keys >= {one.key for one in (await world.bucket.list(prefix="in/")).objects}


async def test_a_reader_whose_server_freezes_gets_an_error(world, seaweed):
    """A read of a body fails when the server freezes; the object is readable afterwards."""
    data = bytes(range(256)) * 40_000
    await store(world, data)
    found = await world.bucket.get("in/a.gz")
    assert isinstance(found, R2ObjectBody)
    await found.body.read()
    seaweed.freeze()
    with anyio.fail_after(PATIENCE), pytest.raises(RunError):
        await text(found)
    seaweed.thaw()
    await works_again(world)
    assert await text(await world.bucket.get("in/a.gz")) == data


async def test_a_restart_amid_writes_loses_nothing(world, seaweed):
    """After kill -9 under load and a restart, every acknowledged put is stored and notified."""
    acknowledged: list[str] = []
    done = anyio.Event()

    async def write(writer: int) -> None:
        number = 0
        while not done.is_set():
            key = f"in/{writer}-{number}.gz"
            body = key.encode() * 1000
            try:
                await world.bucket.put(key, Stream(chunks(body), len(body)))
            except RunError:
                await anyio.sleep(0.05)
            else:
                acknowledged.append(key)
                number += 1

    async def has_acknowledged(count: int) -> None:
        async def enough() -> bool:
            return len(acknowledged) >= count

        await eventually(enough)

    async with anyio.create_task_group() as group:
        for writer in range(4):
            group.start_soon(write, writer)
        await has_acknowledged(40)
        seaweed.kill()
        before = len(acknowledged)
        seaweed.spawn()
        await has_acknowledged(before + 40)
        done.set()
    for key in acknowledged:
        assert await text(await world.bucket.get(key)) == key.encode() * 1000
    assert await told(world) == {one.key for one in (await world.bucket.list()).objects}


PUT_FOREVER = """
import anyio, itertools, json, sys
from pathlib import Path
from tests.r2_world import Store

async def main():
    url, state, keys = json.loads(sys.argv[1])
    async with Store(url, Path(state), keys).open() as world:
        for number in itertools.count():
            await world.bucket.put(f"in/{number}.gz", b"x" * 50_000)
            upload = await world.bucket.create_multipart_upload(f"in/{number}-parts.gz")
            part = await upload.upload_part(1, b"x" * 50_000)
            await upload.complete([(1, part.etag)])
            print(number, flush=True)

anyio.run(main)
"""


def killed_amid_puts(store: Store) -> int:
    """Put objects in another process and kill it; return the last acknowledged number."""
    arguments = json.dumps([store.url, str(store.state), store.keys])
    command = [sys.executable, "-c", PUT_FOREVER, arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(15):
            last = int(process.stdout.readline())
        process.kill()
    return last


async def test_edgesim_killed_amid_writes_tells_of_all_that_it_wrote(seaweed, tmp_path):
    """After kill -9 of edgesim every object on the server is whole and notified."""
    store = Store.s3(seaweed.server, tmp_path)
    last = killed_amid_puts(store)
    async with store.open() as world:
        there = {one.key for one in (await world.bucket.list()).objects}
        assert there >= {f"in/{number}{form}.gz" for number in range(last + 1) for form in FORMS}
        for key in there:
            assert await text(await world.bucket.get(key)) == b"x" * 50_000
        assert await told(world) == there


async def test_a_full_disk_here_is_an_error_and_stores_nothing(world):
    """A body that cannot be spooled on a full disk is an error and is not stored."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    await store(world, b"x")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(RunError, match="File too large"):
            await world.bucket.put("in/b.gz", b"x" * (3 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert await world.bucket.head("in/b.gz") is None
    assert await told(world) == {"in/a.gz"}


async def test_revoked_keys_are_an_error_and_may_come_back(world, seaweed):
    """Revoked keys are an error of one line; with valid keys all calls work again."""
    await store(world, b"before")
    seaweed.kill()
    seaweed.spawn(secret_key="another-secret")

    async def refused() -> bool:
        failures = await all_fail(world)
        return all(
            "SignatureDoesNotMatch" in failure or "AccessDenied" in failure
            for failure in failures.values()
        )

    assert await eventually(refused)
    seaweed.kill()
    seaweed.spawn()
    await works_again(world)
    assert await told(world) == {"in/a.gz", "in/again.gz"}


async def test_the_relay_outlives_its_server(world, seaweed):
    """The relay logs the server's outage without tracebacks and resumes by itself."""
    await store(world, b"x")
    seaweed.kill()
    arrived: list[str] = []

    async def send(queue: str, _body: bytes) -> None:
        arrived.append(queue)

    async def delivered() -> bool:
        return bool(arrived) and not await world.notifications.pending(world.driver)

    async def logged() -> bool:
        return bool(logs)

    with capture_logs() as logs:
        async with anyio.create_task_group() as group:
            group.start_soon(world.notifications.relay, world.driver, send)
            with pytest.raises(RunError):
                await world.bucket.put("in/b.gz", b"x")
            await eventually(logged, PATIENCE)
            seaweed.spawn()
            await eventually(delivered)
            group.cancel_scope.cancel()
    assert arrived == ["ingest"]
    delays = [one for one in logs if one["event"] == "r2 notifications are delayed"]
    assert delays
    assert not any(one["exc_info"] for one in delays)
