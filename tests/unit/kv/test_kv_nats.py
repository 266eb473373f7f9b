"""KV on real NATS servers: several nodes, parts of large values, restarts, other clients."""

import asyncio
import contextlib
import json
import random
import uuid

import anyio
import nats as nats_client
import pytest

from edgesim.clock import Clock
from edgesim.errors import ConfigError, RunError
from edgesim.jetstream import connection as nats_connection
from edgesim.jetstream.url import place_of
from edgesim.kv.driver import KvEntry
from edgesim.kv.nats import INLINE_BYTES, KEEP_SECONDS, PART_BYTES, open_kv
from tests.processes import edgesim
from tests.servers_nats import nats_cluster, nats_server

pytestmark = [pytest.mark.anyio, pytest.mark.nats_server]

LARGE = 3 * PART_BYTES + 1


@pytest.fixture
def name():
    """A store of the test's own."""
    return uuid.uuid4().hex


@pytest.fixture
def url(nats, name):
    """The URL of that store."""
    return f"nats://{nats.address}/{name}"


@contextlib.asynccontextmanager
async def opened(url):
    """Open the store with a connection of its own, with its clock."""
    clock = Clock()
    async with open_kv(url, clock) as driver:
        yield driver, clock


@contextlib.asynccontextmanager
async def jetstream(server):
    """The client library's own JetStream, as another program would use it."""
    client = await nats_client.connect(f"nats://{server.address}")
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def test_another_node_reads_a_write_at_once(url):
    """Two nodes see the same entries, with expiration and metadata, and each other's deletions."""
    async with opened(url) as (one, clock), opened(url) as (two, _):
        entry = KvEntry(b"x" * LARGE, int(clock.now()) + 600, '{"a": "\u00e9\\n"}')
        await one.put("ns", "k", entry, clock.now())
        assert await two.get("ns", "k", clock.now()) == entry
        await two.delete("ns", "k")
        assert await one.get("ns", "k", clock.now()) is None
        assert await one.list("ns", "", "", 10, clock.now()) == []


@pytest.mark.parametrize("size", [0, 1, INLINE_BYTES, INLINE_BYTES + 1, PART_BYTES, LARGE])
async def test_parts_of_replaced_values_are_removed(nats, url, name, size):
    """After a write only the parts of that value are left, whatever the sizes were."""
    async with opened(url) as (store, clock), jetstream(nats) as server:
        await store.put("ns", "k", KvEntry(b"a" * LARGE), clock.now())
        await store.put("ns", "kk", KvEntry(b"b" * LARGE), clock.now())
        await store.put("ns", "k", KvEntry(b"c" * size), clock.now())
        parts = -(-size // PART_BYTES) if size > INLINE_BYTES else 0
        assert (await server.stream_info(f"KV_{name}-kv")).state.messages == 1 + parts + 5
        assert (await store.get("ns", "k", clock.now())).value == b"c" * size
        assert (await store.get("ns", "kk", clock.now())).value == b"b" * LARGE
        await store.delete("ns", "k")
        assert (await server.stream_info(f"KV_{name}-kv")).state.messages == 1 + 5


async def test_readers_never_see_a_mixed_value(url):
    """While two nodes replace a large value, every read returns one of the values, whole."""
    values = [bytes([65 + n]) * (INLINE_BYTES + 1 + n * PART_BYTES) for n in range(4)]
    done = anyio.Event()
    seen = 0

    async def write(seed):
        order = random.Random(seed)
        async with opened(url) as (store, clock):
            for _ in range(25):
                await store.put("ns", "k", KvEntry(order.choice(values)), clock.now())

    async def read():
        nonlocal seen
        async with opened(url) as (store, clock):
            while not done.is_set():
                found = await store.get("ns", "k", clock.now())
                assert found is None or found.value in values
                seen += found is not None

    async with anyio.create_task_group() as readers:
        readers.start_soon(read)
        readers.start_soon(read)
        async with anyio.create_task_group() as writers:
            writers.start_soon(write, 1)
            writers.start_soon(write, 2)
        done.set()
    assert seen > 0


async def test_writes_survive_kill_9_of_the_server(tmp_path):
    """Acknowledged entries are there after the server was killed and started again."""
    with nats_server(tmp_path) as server:
        async with opened(f"nats://{server.address}/s") as (store, clock):
            for number in range(20):
                value = bytes([number]) * (number * 40_000)
                await store.put("ns", f"k{number}", KvEntry(value), clock.now())
            server.kill()
            server.start()
            for number in range(20):
                found = await store.get("ns", f"k{number}", clock.now())
                assert found.value == bytes([number]) * (number * 40_000)


async def test_expired_entries_leave_the_server(monkeypatch, nats, url, name):
    """The server removes entry and parts itself, after the expiration and KEEP_SECONDS."""
    monkeypatch.setattr("edgesim.kv.nats.KEEP_SECONDS", 0)
    assert KEEP_SECONDS >= 3_600
    async with opened(url) as (store, clock), jetstream(nats) as server:
        now = clock.now()
        await store.put("ns", "k", KvEntry(b"x" * LARGE, int(now) + 1), now)
        with anyio.fail_after(60):
            while True:
                if not (await server.stream_info(f"KV_{name}-kv")).state.messages:
                    break
                await anyio.sleep(0.05)


async def test_other_clients_read_the_bucket(nats, url, name):
    """A client of NATS's own KV finds small values; bytes that it does not allow are escaped."""
    async with opened(url) as (store, clock), jetstream(nats) as server:
        await store.put("ns", "user:1", KvEntry(b"Ada"), clock.now())
        bucket = await server.key_value(f"{name}-kv")
        assert (await bucket.get("e.ns.user=3A1")).value == b"Ada"


async def test_long_listings_are_complete(url):
    """More keys than one request to the server returns are listed in order, page by page."""
    keys = sorted(f"k{number}" for number in range(600))
    async with opened(url) as (store, clock):
        async with anyio.create_task_group() as tasks:
            for key in keys:
                tasks.start_soon(store.put, "ns", key, KvEntry(b""), clock.now())
        found, after = [], ""
        while page := await store.list("ns", "k", after, 250, clock.now()):
            found += [each.name for each in page]
            after = found[-1]
    assert found == keys


async def test_cluster_keeps_entries_when_a_server_dies(tmp_path):
    """With replicas=3 all acknowledged entries are readable after one of three servers died."""
    with nats_cluster(tmp_path) as servers:
        hosts = ",".join(server.address for server in servers)
        async with opened(f"nats://{hosts}/s?replicas=3") as (store, clock):
            for number in range(10):
                value = bytes([number]) * (number * 100_000)
                await store.put("ns", f"k{number}", KvEntry(value), clock.now())
            servers[0].kill()
            for number in range(10):
                found = await store.get("ns", f"k{number}", clock.now())
                assert found.value == bytes([number]) * (number * 100_000)
            listed = await store.list("ns", "", "", 20, clock.now())
            assert [each.name for each in listed] == [f"k{number}" for number in range(10)]


async def test_foreign_stream_is_refused(nats, url, name):
    """A bucket of that name with other settings is an error that names the stream."""
    async with jetstream(nats) as server:
        await server.create_key_value(bucket=f"{name}-kv")
    with pytest.raises(RunError, match=f"KV_{name}-kv is not one of edgesim's"):
        async with opened(url):
            pass


async def test_absent_server_is_one_line(monkeypatch):
    """Opening fails soon if no server answers; the error has the address."""
    monkeypatch.setattr(nats_connection, "CONNECT_SECONDS", 1.0)
    with pytest.raises(RunError, match=r"^nats://127\.0\.0\.1:1: "):
        async with opened("nats://127.0.0.1:1"):
            pass


def test_options_of_queues_are_refused():
    """`ack_wait` belongs to queues; the error names the backend and the options of KV."""
    with pytest.raises(ConfigError, match=r"kv.*ack_wait=2.*known: replicas=N, tls=true"):
        place_of("nats://h/s?ack_wait=2", "kv")


async def test_command_reads_and_writes(nats, url, tmp_path):
    """`edgesim kv` works on the store of the URL."""
    (tmp_path / "w.py").write_text("from workers import WorkerEntrypoint as Default\n")
    namespace = {"binding": "CACHE", "id": "ns"}
    worker = {
        "name": "w",
        "main": "w.py",
        "compatibility_date": "2026-01-01",
        "compatibility_flags": ["python_workers"],
        "kv_namespaces": [namespace],
    }
    (tmp_path / "wrangler.json").write_text(json.dumps(worker))
    call = ("kv", "put", "CACHE", "user:1", "Ada", "--kv", url, "--project", tmp_path)
    done = await asyncio.to_thread(edgesim, *call)
    assert done.returncode == 0, done.stderr
    async with opened(url) as (store, clock):
        assert (await store.get("ns", "user:1", clock.now())).value == b"Ada"
