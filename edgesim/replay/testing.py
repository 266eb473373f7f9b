"""The object of the ``edgesim`` fixture: a project to send to, wait for and inspect.

Queues and buckets are in memory; the write-ahead logs of Pipelines are in the test's own folder.
"""

from __future__ import annotations

import json as json_module
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import anyio
import msgspec

from edgesim import faults
from edgesim.backends import require_libraries
from edgesim.clickhouse.chdb.driver import ChdbClickHouse
from edgesim.config import load_project
from edgesim.config.project import DEFAULT, Overrides
from edgesim.errors import RunError, first_error
from edgesim.faults.injector import Fired, Injector
from edgesim.model import Headers, HttpRequest, HttpResponse, TraceItem, read_all
from edgesim.observation.locate import locate
from edgesim.observation.sighting import Sighting
from edgesim.operations import known_bucket, known_queue
from edgesim.queues.producer import Queue
from edgesim.r2.bucket import Bucket
from edgesim.replay.determinism import check_deterministic
from edgesim.replay.expectations import read_lines
from edgesim.replay.fixture import ORIGIN, unix_time
from edgesim.replay.history import History
from edgesim.replay.network import Network
from edgesim.replay.runner import QUIET_SECONDS, START
from edgesim.replay.shared_database import database
from edgesim.replay.targets import targets_of
from edgesim.replay.virtual_clock import VirtualClock
from edgesim.replay.virtual_loop import VirtualLoop, run_virtual
from edgesim.replay.world import World, open_world
from edgesim.runtime.finished import FinishedInvocation


class Engine:
    """The embedded ClickHouse engine of a test session."""

    def __init__(self, path: Path) -> None:
        self.driver = ChdbClickHouse(path)

    def close(self) -> None:
        """Stop the engine, if it was started."""
        run_virtual(lambda _: self.driver.close())


class WorkerResponse(msgspec.Struct, frozen=True):
    """Response of a Worker."""

    status: int
    headers: Headers
    body: bytes

    @property
    def text(self) -> str:
        """The body decoded as UTF-8."""
        return self.body.decode()

    def json(self) -> Any:
        """The body parsed as JSON."""
        return json_module.loads(self.body)


class _Traces:
    def __init__(self) -> None:
        self.items: list[TraceItem] = []

    def finished(self, invocation: FinishedInvocation) -> None:
        self.items.append(invocation.item)


class VirtualProject:
    """A project in virtual time."""

    def __init__(
        self,
        folder: Path,
        state: Path,
        engine: Engine,
        name: str,
        *,
        seed: int = 0,
        isolation: str = "inline",
        faults: str = "",
        start: str | None = None,
    ) -> None:
        overrides = Overrides(
            state=state,
            isolation={DEFAULT: isolation},
            r2="memory:",
            queues="memory:",
            kv="memory:",
        )
        self.project = load_project(folder, overrides)
        check_deterministic(self.project)
        require_libraries(self.project)
        self._engine = engine
        self._name = name
        self._seed = seed
        self._start = START if start is None else unix_time(start, "start")
        self._faults = faults
        self._traces = _Traces()
        self._network = Network()
        self._world: World | None = None

    def run(self, test: Callable[..., Coroutine[Any, Any, None]], arguments: Any) -> None:
        """Run a test in the project, with empty stores."""
        try:
            run_virtual(lambda loop: self._run(loop, test, arguments), self._seed, self._start)
        except BaseExceptionGroup as group:
            # Raise the test's exception, or the one-line error about the project.
            raise first_error(group) or _only(group) from None

    async def _run(self, loop: VirtualLoop, test: Callable[..., Any], arguments: Any) -> None:
        clock = VirtualClock(loop, self._seed)
        rules = faults.read(self._faults, targets_of(self.project)) if self._faults else []
        async with database(self._engine.driver, self._name) as own:
            self._world = World(
                self.project,
                clock,
                Injector(rules, self._seed, clock),
                History(clock, detail=True),
                own,
                self._network.fetch,
                self._traces,
            )
            async with open_world(self._world):
                await test(**arguments)

    # --- actions of a test ---

    async def fetch(
        self,
        path: str = "/",
        *,
        method: str | None = None,
        json: Any = None,
        body: str | bytes = b"",
        headers: Mapping[str, str] | None = None,
        worker: str | None = None,
    ) -> WorkerResponse:
        """Send a request from outside, by default to the entry Worker.

        The method is GET, or POST if there is a body. RunError if the platform was killed before it
        replied.
        """
        sent: Headers = list((headers or {}).items())
        content = body.encode() if isinstance(body, str) else body
        if json is not None:
            sent.append(("content-type", "application/json"))
            content = json_module.dumps(json).encode()
        url = path if path.startswith(("http://", "https://")) else ORIGIN + path
        wanted = method or ("POST" if content else "GET")
        response = await self.world.fetch(HttpRequest(wanted, url, sent, content), worker)
        if response is None:
            raise RunError("the platform was killed before it replied")
        return WorkerResponse(response.status, response.headers, await read_all(response.body))

    async def scheduled(self, worker: str, cron: str = "* * * * *") -> str:
        """Run a scheduled handler now; return its outcome."""
        return await self.world.simulator.scheduled(worker, cron)

    async def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass; work that becomes due in that time is done."""
        await anyio.sleep(seconds)

    async def settle(self, seconds: float = QUIET_SECONDS) -> None:
        """Let time pass until no work remains; AssertionError after ``seconds``."""
        if not await self.world.quiet(seconds):
            raise AssertionError(f"work is still in progress after {seconds:.0f} s")

    async def kill(self) -> None:
        """Kill the platform as by ``kill -9`` and wait for its restart on the same stores."""
        await self.world.kill()
        await self.world.until_up()

    def fault(self, spec: str) -> None:
        """Add fault rules; their times count from now."""
        self.world.add_faults(faults.read(spec, targets_of(self.project)))

    def outbound(
        self, url: str, *, method: str = "GET", status: int = 200, json: Any = None, body: str = ""
    ) -> None:
        """Define the internet's response to a Worker's request."""
        content = json_module.dumps(json) if json is not None else body
        self._network.learn(method, url, HttpResponse(status, [], content.encode()))

    # --- inspection ---

    @property
    def world(self) -> World:
        """The running project; RuntimeError outside a test."""
        if self._world is None:
            raise RuntimeError("the project runs only during a test")
        return self._world

    @property
    def now(self) -> float:
        """Virtual Unix seconds."""
        return self.world.clock.now()

    @property
    def traces(self) -> list[TraceItem]:
        """FinishedInvocation invocations of all Workers, in order."""
        return self._traces.items

    @property
    def faults(self) -> list[Fired]:
        """Faults that struck."""
        return self.world.injector.fired

    def queue(self, name: str) -> Queue:
        """A queue: ``send``, ``peek``, ``depth``, ``purge``; UsageError for an unknown name."""
        known_queue(self.world.simulator, name)
        return self.world.simulator.primitives.queue(name)

    def bucket(self, name: str) -> Bucket:
        """A bucket: ``get``, ``put``, ``head``, ``list``, ...; UsageError for an unknown name."""
        known_bucket(self.world.simulator, name)
        return self.world.simulator.primitives.bucket(name)

    async def records(self, bucket: str, prefix: str = "") -> list[Any]:
        """Records of all NDJSON objects in a bucket, decompressed and parsed."""
        simulator = self.world.simulator
        known_bucket(simulator, bucket)
        return [
            json_module.loads(line)
            async for found in simulator.primitives.objects(bucket, prefix)
            async for lines in read_lines(simulator, bucket, found.key)
            for line in lines
        ]

    async def sql(self, statement: str) -> list[list[Any]]:
        """Rows of a statement's result; 64-bit integers are numbers."""
        quoting = " SETTINGS output_format_json_quote_64bit_integers = 0"
        answer = await self.world.ask(statement + quoting)
        rows: list[list[Any]] = json_module.loads(answer)["data"]
        return rows

    async def trace(self, text: str) -> list[Sighting]:
        """Every place that holds the text, or held it, in the order of the stages."""
        return [each async for each in locate(self.world.simulator, self.traces, text)]

    async def stats(self) -> dict[str, Any]:
        """Counters by stage."""
        return await self.world.stats()


def _only(group: BaseExceptionGroup) -> BaseException:
    """The only exception in the group; the group itself if there are several."""
    leaf: BaseException = group
    while isinstance(leaf, BaseExceptionGroup) and len(leaf.exceptions) == 1:
        leaf = leaf.exceptions[0]
    return leaf
