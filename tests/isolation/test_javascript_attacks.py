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
from tests.isolation.javascript_table import ATTACKS, CPU, JavaScriptAttacks
from tests.isolation.table import CONTAINED
from tests.javascript_world import running, write_javascript
from tests.simulated import ask

pytestmark = [pytest.mark.anyio, pytest.mark.linux, pytest.mark.timeout(600)]

ATTACKER = Path(__file__).parent / "attacker"
SECONDS_MAX = 100
LEAVES_SECONDS = 0.5
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
    "kv_namespaces": [{"binding": "KV", "id": "kv"}],
    "queues": {"producers": [{"binding": "Q", "queue": "q"}]},
    "services": [{"binding": "SELF", "service": "main"}, {"binding": "OTHER", "service": "other"}],
    "vars": {"TEXT": "clean", "PORT": "1", "ADMIN": "http://127.0.0.1:1/cdn-cgi/edgesim/health"},
    "compatibility_flags": ["nodejs_compat"],
}
CPU_MS, LOOP_CPU_MS, OTHER_CPU_MS = 400, 100, 30_000
"""Limits of the attacker: loops end sooner, allocations have the time to reach the other limit.

An attack that ends otherwise leaves isolates behind, whose end takes CPU time of their process: it
must not be the honest invocation's after it.
"""
WAITS_OUT = "wait-until-for-ever"
"""In the kind that waits for as long as `waitUntil` work may take."""


@asynccontextmanager
async def open_attacked(folder: Path, level: str, cpu_ms: int = CPU_MS) -> AsyncIterator[Simulator]:
    """Open a project of the attacker and its neighbour."""
    limits = {"cpu_ms": cpu_ms}
    write_javascript(folder, "main", (ATTACKER / "attacker.js").read_text(), limits=limits, **KEYS)
    (folder / "main" / "loop.wasm").write_bytes((ATTACKER / "loop.wasm").read_bytes())
    write_javascript(folder, "other", OTHER)
    async with running(folder, "main", "other", isolation=level) as simulator:
        yield simulator


@pytest.fixture(scope="module")
async def fresh(anyio_backend: str, tmp_path_factory: Any) -> AsyncIterator[dict[int, Simulator]]:
    """Projects at `process` by the CPU limit; an attack leaves nothing in them for the next."""
    folder = tmp_path_factory.mktemp("fresh")
    async with (
        open_attacked(folder / "short", "process", LOOP_CPU_MS) as short,
        open_attacked(folder / "long", "process", CPU_MS) as long,
        open_attacked(folder / "other", "process", OTHER_CPU_MS) as other,
    ):
        yield {LOOP_CPU_MS: short, CPU_MS: long, OTHER_CPU_MS: other}


def cpu_limit(kind: JavaScriptAttacks) -> int:
    if CPU not in kind.outcomes.split():
        return OTHER_CPU_MS
    return LOOP_CPU_MS if kind.outcomes == CPU else CPU_MS


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


async def contains_at_process(simulator: Simulator, kind: JavaScriptAttacks) -> None:
    """An isolate for each invocation: the next one finds nothing changed."""
    for name in kind.names.split():
        outcomes = await attack(simulator, name)
        assert outcomes <= set(kind.outcomes.split()), (name, outcomes)
        await expect(simulator, "honest", b"value clean 0 undefined")


async def contains_at_warm(simulator: Simulator, kind: JavaScriptAttacks) -> None:
    """One isolate, as in production: the Worker goes on, and its bindings and console work."""
    for name in kind.names.split():
        outcomes = await attack(simulator, name)
        assert outcomes <= set(kind.outcomes.split()), (name, outcomes)
        if kind.warm == CONTAINED:
            await expect(simulator, "probe", b"probe")


def quick(kinds: list[JavaScriptAttacks]) -> list[Any]:
    return [
        pytest.param(kind, id=kind.names.split()[0])
        for kind in kinds
        if WAITS_OUT not in kind.names.split()
    ]


@pytest.mark.parametrize("kind", quick(ATTACKS))
async def test_process_contains(fresh, kind):
    """An isolate for each invocation: the next one finds nothing changed."""
    await contains_at_process(fresh[cpu_limit(kind)], kind)


def kinds_at_warm() -> list[Any]:
    """Kinds of attacks; those that change builtins one by one, since the change stays."""
    apart = [
        pytest.param(kind._replace(names=name), id=name)
        for kind in ATTACKS
        for name in kind.names.split()
        if is_poison(kind) or kind.warm != CONTAINED
    ]
    others = [kind for kind in ATTACKS if not is_poison(kind) and kind.warm == CONTAINED]
    return quick(others) + apart


def is_poison(kind: JavaScriptAttacks) -> bool:
    return kind.names.startswith("poison")


@pytest.mark.parametrize("kind", kinds_at_warm())
async def test_warm_contains(tmp_path, kind):
    """One isolate, as in production: the Worker goes on, and its bindings and console work."""
    async with open_attacked(tmp_path, "warm", cpu_limit(kind)) as simulator:
        await contains_at_warm(simulator, kind)


async def test_both_contain_work_that_never_ends(fresh, tmp_path):
    """The same for `waitUntil` work; at both levels at a time, since the 30 s pass at each."""
    (kind,) = [each for each in ATTACKS if WAITS_OUT in each.names.split()]
    async with (
        open_attacked(tmp_path, "warm") as warm,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(contains_at_process, fresh[CPU_MS], kind)
        tasks.start_soon(contains_at_warm, warm, kind)


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
