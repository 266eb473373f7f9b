"""Every attack on a JavaScript Worker, at both levels: its outcome, and everybody else's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from edgesim.errors import EdgesimError
from edgesim.isolates.javascript.invocation import WorkerdInvocation
from edgesim.simulator import Simulator
from tests.isolation.javascript_table import ATTACKS, JavaScriptAttacks
from tests.isolation.table import CONTAINED
from tests.javascript_world import running, write_javascript
from tests.simulated import ask

pytestmark = [pytest.mark.anyio, pytest.mark.linux, pytest.mark.timeout(600)]

ATTACKER = Path(__file__).parent / "attacker"
SECONDS_MAX = 100
LEAVES_SECONDS = 2
"""After which the client of an attack that has no other end leaves."""
OTHER = """
export default {
  async fetch(request) {
    if (new URL(request.url).pathname === "/slow") await scheduler.wait(500);
    return new Response("other");
  },
};
"""
KEYS: dict[str, Any] = {
    "r2_buckets": [{"binding": "B", "bucket_name": "bucket"}],
    "queues": {"producers": [{"binding": "Q", "queue": "q"}]},
    "services": [{"binding": "SELF", "service": "main"}, {"binding": "OTHER", "service": "other"}],
    "vars": {"TEXT": "clean", "PORT": "1", "ADMIN": "http://127.0.0.1:1/cdn-cgi/edgesim/health"},
    "limits": {"cpu_ms": 400},
    "compatibility_flags": ["nodejs_compat"],
}


@pytest.fixture(name="anyio_backend")
def one_loop():
    return "asyncio"


@asynccontextmanager
async def open_attacked(folder: Path, level: str) -> AsyncIterator[Simulator]:
    """Open a project of the attacker and its neighbour."""
    write_javascript(folder, "main", (ATTACKER / "attacker.js").read_text(), **KEYS)
    (folder / "main" / "loop.wasm").write_bytes((ATTACKER / "loop.wasm").read_bytes())
    write_javascript(folder, "other", OTHER)
    async with running(folder, "main", "other", isolation=level) as simulator:
        yield simulator


async def attack(simulator: Simulator, name: str) -> set[str]:
    """Run one attack while the neighbour serves; return how the Worker's invocations ended."""
    assert not (await simulator.draining.drain(SECONDS_MAX)).left
    before = dict(simulator.workers["main"].outcomes)

    async def attacking():
        patience = LEAVES_SECONDS if name == "never-answers-with-a-timer" else SECONDS_MAX
        try:
            with anyio.move_on_after(patience) as leaving:
                await ask(simulator, f"http://x/attack/{name}", method="POST")
        except EdgesimError:
            return  # the connection was closed, as that of a real client is
        assert not leaving.cancelled_caught or patience == LEAVES_SECONDS, name

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(attacking)
        for _ in range(2):
            with anyio.fail_after(SECONDS_MAX):
                assert await ask(simulator, worker="other") == (200, b"other"), name
    assert not (await simulator.draining.drain(SECONDS_MAX)).left
    after = simulator.workers["main"].outcomes
    return {outcome for outcome, count in after.items() if count != before.get(outcome, 0)}


async def expect(simulator: Simulator, path: str, text: bytes) -> None:
    with anyio.fail_after(SECONDS_MAX):
        assert await ask(simulator, f"http://x/{path}") == (200, text)


@pytest.mark.parametrize("kind", ATTACKS, ids=lambda kind: kind.names.split()[0])
async def test_process_contains(tmp_path, kind):
    """An isolate for each invocation: the next one finds nothing changed."""
    async with open_attacked(tmp_path, "process") as simulator:
        for name in kind.names.split():
            outcomes = await attack(simulator, name)
            assert outcomes <= set(kind.outcomes.split()), (name, outcomes)
            await expect(simulator, "honest", b"value clean 0 undefined")


def kinds_at_warm() -> list[Any]:
    """Kinds of attacks; those that change builtins one by one, since the change stays."""
    apart = [
        pytest.param(kind._replace(names=name), id=name)
        for kind in ATTACKS
        for name in kind.names.split()
        if is_poison(kind) or kind.warm != CONTAINED
    ]
    others = [
        pytest.param(kind, id=kind.names.split()[0])
        for kind in ATTACKS
        if not is_poison(kind) and kind.warm == CONTAINED
    ]
    return others + apart


def is_poison(kind: JavaScriptAttacks) -> bool:
    return kind.names.startswith("poison")


@pytest.mark.parametrize("kind", kinds_at_warm())
async def test_warm_contains(tmp_path, kind):
    """One isolate, as in production: the Worker goes on, and its bindings and console work."""
    async with open_attacked(tmp_path, "warm") as simulator:
        for name in kind.names.split():
            outcomes = await attack(simulator, name)
            assert outcomes <= set(kind.outcomes.split()), (name, outcomes)
            if kind.warm == CONTAINED:
                await expect(simulator, "probe", b"probe")


@pytest.mark.parametrize("level", ["process", "warm"])
async def test_the_numbers_of_invocations_are_out_of_reach(tmp_path, monkeypatch, level):
    """Builtins that record their arguments learn no number of any invocation."""
    numbers = []
    made = WorkerdInvocation.__init__

    def noting(self, number, *args):
        numbers.append(f"{number:x}")
        made(self, number, *args)

    monkeypatch.setattr(WorkerdInvocation, "__init__", noting)
    async with open_attacked(tmp_path, level) as simulator:
        await ask(simulator, "http://x/attack/spy", method="POST")
        async with anyio.create_task_group() as tasks:
            for path in ("wait", "probe", "honest"):
                tasks.start_soon(ask, simulator, f"http://x/{path}")
        status, text = await ask(simulator, "http://x/seen")
        assert status == 200
        found = text.decode(errors="replace")
        assert len(numbers) > 4
        assert [each for each in numbers if each in found] == []
        assert level == "process" or "http" in found  # the spies do see something
