"""A project in virtual time: its Simulator over observed and faulty stores, across kills.

A kill stops the platform between two steps of its tasks or immediately after something became
durable: later operations of that run have no effect, and its memory is lost. Stores that persist
beyond a process (DURABLE drivers) are closed and reopened; if a rule needs it, they are on a
simulated disk. The database counts as a separate server, even if it is embedded: it keeps running,
and loses nothing at a power cut.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import quote

import anyio
from anyio.abc import TaskGroup

from edgesim import backends, drivers
from edgesim.backends import Backends
from edgesim.clickhouse.driver import ClickHouseDriver
from edgesim.clickhouse.gateway import Gateway
from edgesim.clock import Clock
from edgesim.config import Environment, Project
from edgesim.errors import RunError, UsageError
from edgesim.faults.injector import Injector, Life
from edgesim.faults.language import MOMENTS, STOPS, FaultRule
from edgesim.faults.stores import FaultyClickHouse, FaultyKv, FaultyQueues, FaultyR2
from edgesim.isolates.host.driver import Isolates
from edgesim.model import HttpRequest, HttpResponse, WorkerSpec, read_all
from edgesim.replay import totals
from edgesim.replay.faults.disk import SimulatedDisk
from edgesim.replay.faults.isolates import FaultyIsolates
from edgesim.replay.history import History
from edgesim.replay.observers import (
    ObservedClickHouse,
    ObservedIsolates,
    ObservedQueues,
    ObservedR2,
)
from edgesim.replay.targets import areas_of, blobs_of, logs_of
from edgesim.replay.virtual_clock import PlatformClock, VirtualClock
from edgesim.replay.virtual_loop import VirtualLoop
from edgesim.runtime.finished import InvocationSink
from edgesim.runtime.invocation import Fetch
from edgesim.simulator import Simulator, isolates_of, open_simulator

QUIET_POLL_SECONDS = 1.0
_ON_DISK = {"power-cut", "failed-fsync", "lying-fsync", "full", "bit-flip"}
START_AGAIN_SECONDS = 1.0
"""Delay before a restart, if an injected fault prevented the platform's start."""


class World:
    """A project that runs in virtual time, inside ``open_world``."""

    def __init__(
        self,
        project: Project,
        clock: Clock,
        injector: Injector,
        history: History,
        database: ClickHouseDriver,
        network: Fetch | None = None,
        sink: InvocationSink | None = None,
    ) -> None:
        self.project = project
        self.clock = clock
        self.injector = injector
        self.history = history
        self.started = clock.now()
        self.wall = PlatformClock(clock)
        """The clock that the platform sees."""
        self.disk: SimulatedDisk | None = None
        self._database = database
        self._network = network
        self._sink = sink
        self._open_isolates = isolates_of(project)
        self._consumed = {
            each.queue
            for worker in project.workers.values()
            for each in worker.settings.queues.consumers
        }
        self._simulator: Simulator | None = None
        self._up = anyio.Event()
        self._life = Life()
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()
        self._was_up = False
        self.moments: TaskGroup | None = None
        """Task group of the tasks that wait for the moments of rules."""
        self._totals: dict[str, Any] = {}
        injector.stop = self._stop
        history.ahead = lambda: self.wall.ahead
        self.require(injector.rules)

    def require(self, rules: Sequence[FaultRule]) -> None:
        """Prepare the simulated disk that rules need; UsageError if it is too late."""
        needing = [rule for rule in rules if rule.steps or rule.kind in _ON_DISK]
        if not needing or self.disk is not None:
            return
        if not isinstance(self.clock, VirtualClock):
            raise UsageError(f"{needing[0].text!r} needs virtual time: leave --speed realtime out")
        if self._simulator is not None:
            raise UsageError(
                f"{needing[0].text!r} needs a simulated disk from the start: "
                "write it in @pytest.mark.edgesim(faults=...)"
            )
        self.disk = SimulatedDisk(areas_of(self.project), self.injector, self.injector.seed)

    @property
    def simulator(self) -> Simulator:
        """The Simulator of this platform run; RunError between two runs."""
        if self._simulator is None:
            raise RunError("the platform is just starting")
        return self._simulator

    async def until_up(self) -> Simulator:
        """Wait for the Simulator."""
        while self._simulator is None:
            await self._up.wait()
        return self._simulator

    async def fetch(self, request: HttpRequest, worker: str | None = None) -> HttpResponse | None:
        """Send a request from outside; None if the platform was killed before it replied."""
        simulator = await self.until_up()
        life = self._life
        response = await simulator.fetch(request, worker)
        return None if life.killed else response

    async def quiet(self, seconds: float) -> bool:
        """Let time pass until no work remains; False if that takes longer than ``seconds``.

        Windows close and retries happen at their normal times.
        """
        deadline = self.clock.now() + seconds
        while self.clock.now() < deadline:
            if await self.is_quiet(deadline):
                return True
            await anyio.sleep(QUIET_POLL_SECONDS)
        return False

    async def is_quiet(self, deadline: float) -> bool:
        """True if no work remains that is due before ``deadline`` (Unix seconds)."""
        if self._simulator is None:
            return False
        if self.history.due(self._consumed, deadline):
            return False
        with self.injector.calm():
            return await self._simulator.draining.is_quiet(deadline + self.wall.ahead)

    async def ask(self, statement: str) -> str:
        """Result of a statement as JSONCompact; RunError if the database replies with an error."""
        url = f"http://clickhouse/?default_format={quote('JSONCompact')}"
        request = HttpRequest("POST", url, [], statement.encode())
        answer = await self.simulator.primitives.clickhouse(request)
        text = (await read_all(answer.body)).decode("utf-8", "replace")
        if answer.status != 200:
            raise RunError(f"{statement}: {text.strip()}")
        return text

    async def stats(self) -> dict[str, Any]:
        """The Simulator's counters, summed over all platform runs, and its current gauges.

        In virtual time CPU is omitted, which is not reproducible, and bytes, which depend on texts
        that differ between Python versions (its error messages); a report must be reproducible.
        """
        with self.injector.calm():
            stats = await self.simulator.stats()
        if isinstance(self.clock, VirtualClock):
            del stats["cpu_ms"]
            for stage in ("r2", "pipelines", "streams", "sinks"):
                for counts in stats[stage].values():
                    del counts["bytes"]
        total: dict[str, Any] = totals.add(self._totals, stats)
        return total

    async def kill(self) -> None:
        """Kill the platform now, as ``kill -9`` does; the next run starts by itself."""
        await self.until_up()
        self._stop()

    def _stop(self, rule: FaultRule | None = None) -> None:
        """Stop the platform now; by a power cut if the rule is one."""
        if self._life.killed:
            return
        self._life.killed = True
        if self.disk is not None:
            power = rule is not None and rule.kind == "power-cut"
            self.wall.boots += power
            self.disk.stop(power=power)
        if (simulator := self._simulator) is not None:
            stats = simulator.counters({}, {})
            self.history.traces_lost_by_kills += stats["tail"]["pending"]
            self._totals = totals.add(self._totals, totals.counters(stats))
            self._show(None)
            simulator.abandon()
        self._scope.cancel()

    def add_faults(self, rules: Sequence[FaultRule]) -> None:
        """Add rules whose times count from now. UsageError if it is too late for one."""
        self.require(rules)
        self.await_moments(self.injector.add(rules))

    def await_moments(self, rules: Sequence[FaultRule]) -> None:
        """Schedule the rules that strike at a moment."""
        assert self.moments is not None
        for rule in rules:
            if rule.kind in MOMENTS and not rule.steps:
                self.moments.start_soon(self.strike_at, rule)

    async def strike_at(self, rule: FaultRule) -> None:
        """Wait for the moment of a rule, then apply it."""
        await anyio.sleep(self.started + rule.since - self.clock.now())
        if rule.kind in STOPS:
            self.injector.note(rule, "platform")
            await self.until_up()
            self._stop(rule)
        elif rule.kind == "jump":
            self.injector.note(rule, "clock")
            self.wall.jump(rule.jump)
        elif self.disk is not None and (
            hit := self.disk.flip_bit(rule.target, self.injector.chance_of(rule))
        ):
            self.injector.note(rule, f"disk {hit}")
            self._note_damage(self.disk)

    def _note_damage(self, disk: SimulatedDisk) -> None:
        """Record the possible losses by flipped bits and lying flushes."""
        logs, blobs = logs_of(self.project), blobs_of(self.project)
        records: Counter[str] = Counter()
        for path, lines in disk.medium.damaged.items():
            if logs in path.parents:
                records[path.relative_to(logs).parts[0]] += lines
        self.history.damaged = records
        self.history.blobs_damaged = sum(blobs in path.parents for path in disk.medium.damaged)
        self.history.lied = bool(disk.medium.lost)

    def end(self) -> None:
        """Shut the platform down in order."""
        self._ended.set()

    async def live(self) -> None:
        """Run the platform, again after each kill, until ``end``."""
        loop = asyncio.get_running_loop()
        if isinstance(loop, VirtualLoop):
            loop.disk = self.disk
        async with AsyncExitStack() as lasting:
            kept = await self._open_stores(lasting, durable=False)
            while not self._ended.is_set():
                self._life, self._was_up = Life(), False
                life = self._life
                with anyio.CancelScope() as self._scope:
                    try:
                        async with AsyncExitStack() as stack:
                            stores = kept | await self._open_stores(stack, durable=True)
                            await self.history.resolve(stores["queues"])
                            await self._one_life(self._wrapped(stores, life), life)
                    except Exception:
                        if not life.killed and not self._failed_to_start():
                            raise
                if self.disk is not None:
                    if not life.killed and not self._ended.is_set():
                        await anyio.sleep(START_AGAIN_SECONDS)
                    self.disk.restore()
                    self._note_damage(self.disk)
                self.wall.restart()
                self.injector.restarted()

    def _failed_to_start(self) -> bool:
        """True if disk faults prevented this run from starting."""
        return self.disk is not None and self.disk.failures > 0 and not self._was_up

    async def _open_stores(self, stack: AsyncExitStack, *, durable: bool) -> dict[str, Any]:
        """Open the stores that do, or do not, keep their data when they are closed."""
        environment, stores = Environment.read(), {}
        openers = {
            "r2": backends.open_r2,
            "queues": backends.open_queues,
            "kv": backends.open_kv,
        }
        for name, open_store in openers.items():
            if not self.project.uses(name):
                continue
            url = getattr(self.project.backends, name)
            if drivers.properties(name, url).durable is durable:
                opened: Any = open_store(self.project, environment, self.wall)
                stores[name] = await stack.enter_async_context(opened)
        return stores

    def _wrapped(self, stores: Mapping[str, Any], life: Life) -> Backends:
        places = {
            name: (pipeline.bucket, f"{prefix}/" if (prefix := pipeline.prefix.strip("/")) else "")
            for name, pipeline in self.project.account.pipelines.items()
        }
        watched_r2: Any = ObservedR2(stores["r2"], self.history, places)
        watched_queues: Any = ObservedQueues(stores["queues"], self.history)
        watched_database: Any = ObservedClickHouse(self._database, self.history)
        kv = FaultyKv(stores["kv"], self.injector, life, self.wall) if "kv" in stores else None
        return Backends(
            FaultyR2(watched_r2, self.injector, life),
            FaultyQueues(watched_queues, self.injector, life, self.wall),
            Gateway(FaultyClickHouse(watched_database, self.injector, life), self.project.schema),
            kv,
        )

    async def _one_life(self, stores: Backends, life: Life) -> None:
        def open_isolates(spec: WorkerSpec, clock: Clock) -> AbstractAsyncContextManager[Isolates]:
            return self._isolates(spec, life)

        async with open_simulator(
            self.project,
            stores,
            self.wall,
            open_isolates=open_isolates,
            network=self._network,
            sink=self._sink,
        ) as simulator:
            for stream in simulator.primitives.streams.values():
                stream.watcher = self.history
            self._show(simulator)
            try:
                await self._ended.wait()
            finally:
                if self._simulator is simulator:
                    self._show(None)

    @asynccontextmanager
    async def _isolates(self, spec: WorkerSpec, life: Life) -> AsyncIterator[Isolates]:
        settings = self.project.workers[spec.name].settings
        pipelines = {each.binding: each.target for each in settings.pipelines}
        async with self._open_isolates(spec, self.wall) as inner:
            faulty = FaultyIsolates(
                spec.name,
                inner,
                pipelines,
                self.injector,
                life,
                self.clock,
            )
            # The rows of streams are observed in the streams: they may come by HTTP as well.
            legacy = self.project.account.pipelines
            observed = {name: each for name, each in pipelines.items() if each in legacy}
            yield ObservedIsolates(spec.name, faulty, observed, self.history, self.wall, life)

    def _show(self, simulator: Simulator | None) -> None:
        self._simulator = simulator
        if simulator is not None:
            self._was_up = True
            self._up.set()
        else:
            self._up = anyio.Event()


@asynccontextmanager
async def open_world(world: World) -> AsyncIterator[World]:
    """Run the world; at the end the platform is shut down in order."""
    async with anyio.create_task_group() as living:
        living.start_soon(world.live)
        async with anyio.create_task_group() as kills:
            world.moments = kills
            world.await_moments(world.injector.rules)
            await world.until_up()
            yield world
            kills.cancel_scope.cancel()  # rules that are due later no longer strike
        world.end()
