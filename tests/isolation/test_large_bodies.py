"""Bodies larger than an isolate's memory are passed on by handle and never enter it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edgesim.model import Limits, Stream
from edgesim.r2.bucket import Bucket
from edgesim.runtime.r2_binding import R2Binding
from tests.isolation.world import open_world
from tests.r2_world import Store
from tests.r2_world import World as Buckets

pytestmark = pytest.mark.anyio

BYTES = 192 << 20
"""More than an isolate may hold, 128 MB, and more than the platform may grow by."""
PLATFORM_GROWTH_BYTES_MAX = 100 << 20
WORKER = """
from workers import Response, WorkerEntrypoint
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        found = await self.env.FROM.get("large")
        if request.url.endswith("put"):
            stored = await self.env.TO.put("copy", found.body)
            return Response(str(stored.size))
        if request.url.endswith("fetch"):
            answer = await self.env.ECHO.fetch("http://echo/", method="PUT", body=found.body)
            return Response(str(answer.status))
        return Response(str(len(await found.bytes())))
"""


async def zeros() -> AsyncIterator[bytes]:
    chunk = bytes(1 << 20)
    for _ in range(BYTES >> 20):
        yield chunk


@pytest.fixture(scope="module")
async def store(
    anyio_backend: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Buckets]:
    async with Store.file(tmp_path_factory.mktemp("large")).open() as opened:
        await opened.bucket.put("large", Stream(zeros(), BYTES))
        yield opened
        await opened.bucket.delete("large")


@pytest.mark.parametrize("level", ["process", "warm"])
async def test_a_large_body_passes_through(store, level, tmp_path):
    """A large body can be copied to a bucket or sent on; reading it whole exceeds the memory."""
    main = tmp_path / "entry.py"
    main.write_text(WORKER)
    target: Bucket = store.other("target")
    buckets = {"FROM": R2Binding(store.bucket), "TO": R2Binding(target)}
    before = _resident()
    async with open_world(level, main, buckets, limits=Limits()) as world:
        copied = await world.fetch("put")
        assert (copied.outcome, copied.body) == ("ok", str(BYTES).encode()), copied.done
        assert copied.done.cpu_ms < 1000
        sent = await world.fetch("fetch")
        assert (sent.outcome, sent.body) == ("ok", b"200"), sent.done
        assert isinstance(world.requests[0].body, Stream)
        assert _resident() - before < PLATFORM_GROWTH_BYTES_MAX
        assert (await world.fetch("read")).outcome == "exceededMemory"
        assert (await world.fetch("fetch")).body == b"200"
    await target.delete("copy")


def _resident() -> int:
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024
