"""Worker invocations caused by one incoming request are counted together, of any kind."""

import pytest

from edgesim.model import HttpRequest, read_all
from edgesim.runtime.lineage import HEADER, INVOCATIONS_MAX
from tests.simulated import settle, simulated, write_worker

pytestmark = pytest.mark.anyio

CALLER = """
import asyncio, json

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        found = await asyncio.gather(*({call} for i in range({count})), return_exceptions=True)
        texts = [f"{{type(each).__name__}}: {{each}}" if isinstance(each, Exception) else "ok"
                 for each in found]
        return Response(json.dumps([texts.count("ok"), sorted(set(texts) - {{"ok"}})]))
"""
CALLEE = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("x" if "edgesim-lineage" not in request.headers else "seen")
    async def add(self, a):
        return a
"""
CALLS = {
    "service binding": "self.env.B.fetch('http://any/')",
    "RPC": "self.env.B.add(1)",
    "fetch of a local Worker": "fetch('http://b.localhost/')",
}


def workers(folder, call: str, count: int) -> None:
    services = [{"binding": "B", "service": "b"}]
    write_worker(folder, "main", CALLER.format(call=call, count=count), services=services)
    write_worker(folder, "b", CALLEE)


async def ended(simulator, worker: str) -> int:
    """Wait until the project is drained and return the Worker's number of invocations."""
    await settle(simulator)
    return sum(simulator.workers[worker].outcomes.values())


async def answer(simulator, headers=()) -> bytes:
    response = await simulator.fetch(HttpRequest("GET", "http://main.localhost/", list(headers)))
    return await read_all(response.body)


@pytest.mark.parametrize("name", CALLS)
async def test_a_request_invokes_so_many_workers(name, tmp_path):
    """Itself and 31 others; further calls raise, and the next request has its own budget."""
    workers(tmp_path, CALLS[name], 40)
    async with simulated(tmp_path, "main", "b") as simulator:
        for _ in range(2):
            text = (await answer(simulator)).decode()
            assert text.startswith(f"[{INVOCATIONS_MAX - 1}, ["), text
            assert "Too many Worker invocations" in text
        assert await ended(simulator, "b") == 2 * (INVOCATIONS_MAX - 1)


async def test_a_tree_of_calls_shares_the_budget(tmp_path):
    """Each Worker of a tree calls itself twice: 32 invocations, not 2^16."""
    write_worker(
        tmp_path,
        "main",
        """
        import asyncio
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                calls = (self.env.SELF.fetch("http://any/") for _ in range(2))
                await asyncio.gather(*calls, return_exceptions=True)
                return Response("done")
        """,
        services=[{"binding": "SELF", "service": "main"}],
    )
    async with simulated(tmp_path, "main") as simulator:
        assert await answer(simulator) == b"done"
        assert await ended(simulator, "main") == INVOCATIONS_MAX


async def test_a_client_cannot_set_the_header(tmp_path):
    """Unknown values are ignored, and no Worker sees the header."""
    workers(tmp_path, "fetch('http://b.localhost/', headers={'edgesim-lineage': 'x'})", 3)
    write_worker(
        tmp_path,
        "b",
        """
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                if "edgesim-lineage" in request.headers.keys():
                    raise ValueError("seen")
                return Response("x")
        """,
    )
    async with simulated(tmp_path, "main", "b") as simulator:
        for value in ("x", "0", "99"):
            assert await answer(simulator, [(HEADER, value)]) == b"[3, []]"
        assert await ended(simulator, "b") == 9
        assert dict(simulator.workers["b"].outcomes) == {"ok": 9}
