"""Runs a Worker at one isolation level, with the real platform side of an invocation."""

import importlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
from structlog.testing import capture_logs

from edgesim.clock import Clock
from edgesim.errors import PlatformError
from edgesim.isolates.host.driver import DRIVERS, Isolates
from edgesim.isolates.host.held_body import HeldBody
from edgesim.isolates.protocol.wire import Done, Invoke
from edgesim.model import BindingSpec, HttpRequest, HttpResponse, Limits, Stream, WorkerSpec
from edgesim.runtime.bindings import ServiceBinding
from edgesim.runtime.invocation import Binding, Invocation
from edgesim.runtime.lineage import Lineage
from edgesim.runtime.trace import Trace

ATTACKER = Path(__file__).parent / "attacker" / "attacker.py"
CPU_MS = 200
SUBREQUESTS_MAX = 50
SECONDS_MAX = 100
"""Time limit of an answer in seconds, also on a busy machine; most attacks take less than one."""
ENV = [
    BindingSpec("ECHO", "service"),
    BindingSpec("TEXT", "text", "clean"),
    BindingSpec("JSON", "json", {"list": ["clean"]}),
]


class Answer:
    """Result of one invocation."""

    def __init__(self, done: Done, invocation: Invocation) -> None:
        self.done = done
        self.response = invocation.response
        self.logs = invocation.trace.logs
        self.truncated = invocation.trace.truncated

    @property
    def outcome(self) -> str:
        return self.done.outcome

    @property
    def body(self) -> bytes:
        assert self.response is not None, self.done
        body = self.response.body
        if isinstance(body, HeldBody):
            body = self.response.body = body.take()
        assert isinstance(body, bytes)
        return body

    @property
    def failure(self) -> str:
        return self.done.exceptions[0].message if self.done.exceptions else ""


class World:
    """A Worker's isolates and the bindings of its env."""

    def __init__(
        self,
        name: str,
        level: str,
        isolates: Isolates,
        clock: Clock,
        bindings: Mapping[str, Binding],
    ) -> None:
        self.name = name
        self.level = level
        self.isolates = isolates
        self.requests: list[HttpRequest] = []
        self.bindings: dict[str, Binding] = {"ECHO": ServiceBinding(self._echo), **bindings}
        self._clock = clock

    async def fetch(self, path: str, body: Any = b"") -> Answer:
        """Send one request to the Worker and wait until its waitUntil work has ended."""
        event: dict[str, Any] = {"method": "POST", "url": f"http://w/{path}", "headers": []}
        invocation = Invocation(
            self.name,
            self.bindings,
            self._nowhere,
            Trace(self.name, {}, self._clock.now_ms()),
            self._clock,
            subrequests_max=SUBREQUESTS_MAX,
        )
        try:
            with anyio.fail_after(SECONDS_MAX):
                event |= {"body": await invocation.give_body(body), "cf": {}}
                invoke = Invoke("fetch", event, self._clock.now())
                done = await self.isolates.invoke(invoke, invocation)
        finally:
            await invocation.close()
        return Answer(done, invocation)

    async def attack(self, name: str) -> Answer:
        """Run the named attack; its request body is an open stream of the platform."""
        return await self.fetch(f"attack/{name}", body=Stream(_secret()))

    async def honest(self) -> Any:
        """Return the state that an ordinary invocation sees; it must be the same every time."""
        answer = await self.fetch("honest", b"12345")
        assert answer.outcome == "ok", answer.done
        assert answer.done.exceptions == []
        return json.loads(answer.body)

    async def _echo(self, request: HttpRequest, lineage: Lineage) -> HttpResponse:
        self.requests.append(request)
        return HttpResponse(200, [], request.body)

    async def _nowhere(self, request: HttpRequest, lineage: Lineage) -> HttpResponse:
        raise PlatformError("Network connection lost.", "AbortError")


async def _secret() -> AsyncIterator[bytes]:
    yield b"secret"


@asynccontextmanager
async def open_world(
    level: str,
    main: Path = ATTACKER,
    buckets: Mapping[str, Binding] | None = None,
    name: str = "w",
    **settings: Any,
) -> AsyncIterator[World]:
    """Open ``main`` at the level; ``buckets`` are R2 bindings, ``settings`` WorkerSpec fields."""
    clock = Clock()
    module = importlib.import_module(DRIVERS[level].partition(":")[0])
    limits = Limits(cpu_ms=CPU_MS)
    env = [*ENV, *(BindingSpec(each, "r2") for each in buckets or {})]
    spec = WorkerSpec(name, str(main), env, **({"limits": limits} | settings))
    async with module.open_isolates(spec, clock) as isolates:
        yield World(name, level, isolates, clock, buckets or {})


@contextmanager
def no_change_found() -> Iterator[None]:
    """AssertionError if a `warm` process is retired because worker code changed its state.

    Its number would prove less: a process that waits for a core for seconds is retired too.
    """
    with capture_logs() as logged:
        yield
    changes = [each["changed"] for each in logged if each["event"] == "isolate retired"]
    assert not changes, changes
