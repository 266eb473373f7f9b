"""No walk over attributes leads from one invocation of a ``warm`` process to another."""

import json
import secrets
from pathlib import Path

import anyio
import pytest

from edgesim.model import HttpResponse, Limits
from edgesim.runtime.bindings import ServiceBinding
from tests.isolation.table import WALKS
from tests.isolation.world import Answer, World, open_world

pytestmark = pytest.mark.anyio

WALKER = Path(__file__).parent / "attacker" / "walker.py"
VICTIMS = 2
CPU_MS = 20_000


class Gate:
    """A service that answers the victims when the walk is over."""

    def __init__(self) -> None:
        self.waiting = 0
        self.all_wait = anyio.Event()
        self.over = anyio.Event()

    async def __call__(self, request, lineage):
        self.waiting += 1
        if self.waiting == VICTIMS:
            self.all_wait.set()
        await self.over.wait()
        return HttpResponse(200, [], b"")


@pytest.fixture
async def walker(anyio_backend, monkeypatch):
    """World with a single process, which runs all invocations."""
    monkeypatch.setattr("edgesim.isolates.host.warm.PROCESSES_MIN", 1)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    async with open_world("warm", WALKER, limits=Limits(cpu_ms=CPU_MS)) as world:
        yield world


async def beside_victims(world: World, path: str) -> tuple[list[Answer], Answer]:
    """Return the victims' answers, and that of an invocation which ran while they waited."""
    gate = Gate()
    world.bindings["ECHO"] = ServiceBinding(gate)
    victims: list[Answer] = []

    async def victim() -> None:
        secret = f"secret-{secrets.token_hex(20)}"[:40]
        victims.append(await world.fetch("victim", secret.encode()))

    async with anyio.create_task_group() as tasks:
        for _ in range(VICTIMS):
            tasks.start_soon(victim)
        await gate.all_wait.wait()
        answer = await world.fetch(path)
        gate.over.set()
    return victims, answer


@pytest.mark.parametrize("name", WALKS)
async def test_walk_finds_no_neighbour(walker, name):
    """A search finds objects, but none of a neighbour and none that serves all invocations."""
    victims, answer = await beside_victims(walker, name)
    assert answer.outcome == "ok", answer.done
    found = json.loads(answer.body)
    assert found["found"] == []
    assert found["seen"] > 0 or name == "threads-and-locals"
    assert [each.outcome for each in victims] == ["ok"] * VICTIMS
    assert {each.body for each in victims} == {str(found["pid"]).encode()}


async def test_walker_finds_what_is_there(walker):
    """A search that reaches another event loop reports the path to it."""
    _, answer = await beside_victims(walker, "planted")
    assert "another's event loop" in json.loads(answer.body)["found"][0]


@pytest.mark.linux
async def test_channel_is_for_who_has_the_key(walker):
    """Calls that read, write or copy the descriptor of the shared channel are refused."""
    victims, answer = await beside_victims(walker, "channel")
    assert set(answer.body.split()) == {b"refused"}
    assert [each.outcome for each in victims] == ["ok"] * VICTIMS
