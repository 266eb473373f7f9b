"""Run fixtures through a World and collect the results.

Requests enter where the HTTP server would pass them on; the rest of the chain is the one of
``dev``. After the last request, time advances until no work remains: windows close by age, retries
happen when they are due.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any, TextIO

import anyio
import msgspec

from edgesim.backends import open_clickhouse, require_libraries
from edgesim.clickhouse.driver import ClickHouseDriver
from edgesim.clock import Clock
from edgesim.config import Environment, Project
from edgesim.errors import UsageError
from edgesim.faults.injector import Fired, Injector
from edgesim.faults.language import FaultRule
from edgesim.model import read_all
from edgesim.replay import checkers, expectations
from edgesim.replay.determinism import check_deterministic
from edgesim.replay.expectations import Answered, Expectations, Mismatch, Outcome
from edgesim.replay.fixture import Fixture, RecordedFetch, RecordedRequest
from edgesim.replay.history import History
from edgesim.replay.latencies import Latencies
from edgesim.replay.network import Network
from edgesim.replay.stages import Stage, stages
from edgesim.replay.virtual_clock import VirtualClock
from edgesim.replay.virtual_loop import run_virtual
from edgesim.replay.world import World, open_world

START = 1_893_456_000.0
"""2030-01-01T00:00:00Z, the default start: later than recorded events, so none is in the future."""
IN_FLIGHT_MAX = 64
IN_FLIGHT_BYTES_MAX = 16 << 20
"""Limit of request bodies in flight; further requests wait for responses."""
TRACES_PENDING_MAX = 5_000
"""Limit of traces pending for Tail Workers, which would lose some; further requests wait."""
TRACES_PENDING_MIN = 200
"""Two batches: with fewer, a Tail Worker would wait for more."""
TRACES_PENDING_BYTES_MAX = 32 << 20
"""Limit of their memory: a trace is about as large as its request, which is logged."""
COLLECT_AFTER = (20_000, 10, 10)
"""Thresholds of garbage collection: new objects per collection of generation 0, then ratios."""
CLIENT_SECONDS = 900.0
"""Timeout of a client."""
QUIET_SECONDS = 6 * 3600.0
"""Time after the last request to deliver everything; messages delayed longer count as parked."""

Progress = Callable[[int, float, float], None]
"""Called with requests answered, virtual seconds elapsed, and the share (0 to 1) of the fixture."""


class Plan(msgspec.Struct):
    """Parameters of a replay; ``start`` is Unix seconds, None for the fixture's."""

    project: Project
    fixtures: Sequence[Path]
    seed: int = 0
    start: float | None = None
    faults: Sequence[FaultRule] = ()
    expected: Expectations | None = None
    check: bool = False
    realtime: bool = False
    journal: TextIO | None = None
    open_database: Callable[[], AbstractAsyncContextManager[ClickHouseDriver]] | None = None
    """Replaces the database that the project's URL names."""
    checkers: Mapping[str, checkers.Checker] = msgspec.field(
        default_factory=lambda: checkers.CHECKERS
    )


class ReplayReport(msgspec.Struct):
    """Result of a replay; ``seconds`` are virtual seconds."""

    seed: int
    requests: int
    responses: dict[int, int]
    unanswered: int
    seconds: float
    drained: bool
    stages: list[Stage]
    stats: dict[str, Any]
    fault_counts: dict[str, int] = {}
    """Number of times that each fault rule struck, by its text."""
    faults: list[Fired] = []
    """The first faults that struck."""
    disk: dict[str, int] = {}
    """Effects of power cuts on the simulated disk, and how often they occurred."""
    checked: list[str] = []
    violations: list[checkers.Violation] = []
    expectations: list[str] = []
    mismatches: list[Mismatch] = []

    @property
    def ok(self) -> bool:
        """True if all work was drained and no expectation or check failed."""
        return self.drained and not self.mismatches and not self.violations


def replay(plan: Plan, progress: Progress | None = None) -> ReplayReport:
    """Run the fixtures in order; UsageError or ConfigError if they cannot be replayed."""
    with _rare_collections():
        return _run(plan, progress)


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Collect garbage less often: traversing live traces took a third of a replay."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _run(plan: Plan, progress: Progress | None) -> ReplayReport:
    require_libraries(plan.project)
    if plan.realtime:
        return anyio.run(
            _replay, plan, Clock(plan.seed), progress, backend_options={"use_uvloop": True}
        )
    check_deterministic(plan.project)
    start = plan.start
    if start is None:
        start = next((begin for path in plan.fixtures if (begin := Fixture(path).start())), START)
    return run_virtual(
        lambda loop: _replay(plan, VirtualClock(loop, plan.seed), progress),
        plan.seed,
        start,
        plan.journal,
    )


async def _replay(plan: Plan, clock: Clock, progress: Progress | None) -> ReplayReport:
    opened = (
        open_clickhouse(plan.project, Environment.read())
        if plan.open_database is None
        else plan.open_database()
    )
    async with opened as database:
        return await _replay_into(plan, clock, database, progress)


async def _replay_into(
    plan: Plan, clock: Clock, database: ClickHouseDriver, progress: Progress | None
) -> ReplayReport:
    detail = plan.check or bool(plan.faults)
    network = Network()
    world = World(
        plan.project,
        clock,
        Injector(plan.faults, plan.seed, clock),
        History(clock, detail=detail),
        database,
        None if plan.realtime else network.fetch,
    )
    async with open_world(world):
        feed = _Feed(world, network, plan.expected, progress)
        for path in plan.fixtures:
            await feed.run(Fixture(path))
        if not feed.count:
            names = ", ".join(map(str, plan.fixtures))
            raise UsageError(f"{names}: there is no request; a line is a JSON event or an envelope")
        drained = await world.quiet(QUIET_SECONDS)
        return await _report(plan, world, feed, drained=drained)


async def _report(plan: Plan, world: World, feed: _Feed, *, drained: bool) -> ReplayReport:
    seconds = round(world.clock.now() - world.started, 6)
    stats = await world.stats()
    with world.injector.calm():
        report = ReplayReport(
            seed=plan.seed,
            requests=feed.count,
            responses=dict(sorted(feed.responses.items())),
            unanswered=feed.unanswered,
            seconds=seconds,
            drained=drained,
            stages=stages(world, feed.count, feed.responses.total(), feed.latencies),
            stats=stats,
            fault_counts=dict(sorted(world.injector.counts.items())),
            faults=world.injector.fired,
            disk={} if world.disk is None else dict(sorted(world.disk.medium.cuts.items())),
        )
        if world.history.detail:
            report.checked = list(plan.checkers)
            report.violations = await checkers.check(world, plan.checkers)
        if plan.expected is not None:
            outcome = Outcome(feed.responses, feed.answers, stats, world.simulator, world.ask)
            report.expectations, report.mismatches = await expectations.compare(
                plan.expected, outcome
            )
    return report


class _Feed:
    """Sends a fixture's requests when they are due, and counts the responses."""

    def __init__(
        self,
        world: World,
        network: Network,
        expected: Expectations | None,
        progress: Progress | None,
    ) -> None:
        self.count = 0
        self.unanswered = 0
        self.responses: Counter[int] = Counter()
        self.answers: dict[int, Answered] = {}
        self.latencies = Latencies()
        self._world = world
        self._network = network
        self._wanted = {each.number for each in expected.requests} if expected else set()
        self._progress = progress
        self._slots = anyio.Semaphore(IN_FLIGHT_MAX)
        self._bytes = 0
        self._longest = 1

    async def run(self, fixture: Fixture) -> None:
        """Send all requests of one fixture; its times count from now."""
        clock = self._world.clock
        begun = clock.now()
        async with anyio.create_task_group() as tasks:
            for line in fixture:
                if isinstance(line, RecordedFetch):
                    self._network.learn(line.method, line.url, line.response)
                    continue
                self._check_worker(line)
                if (wait := begun + line.at - clock.now()) > 0:
                    await anyio.sleep(wait)
                await self._make_room(line.size)
                self.count += 1
                tasks.start_soon(self._send, self.count, line)
                if self._progress is not None:
                    elapsed = clock.now() - self._world.started
                    self._progress(self.responses.total(), elapsed, fixture.share)

    def _check_worker(self, arrival: RecordedRequest) -> None:
        workers = self._world.project.workers
        if arrival.worker is not None and arrival.worker not in workers:
            known = ", ".join(workers)
            raise UsageError(f"the fixture names Worker {arrival.worker!r}; known: {known}")

    async def _make_room(self, size: int) -> None:
        await self._slots.acquire()
        self._longest = max(self._longest, size)
        # No event announces that fewer traces are pending.
        while await self._is_full(size):  # noqa: ASYNC110
            await anyio.sleep(0.001)
        self._bytes += size

    async def _is_full(self, size: int) -> bool:
        fitting = TRACES_PENDING_BYTES_MAX // self._longest
        traces_max = min(max(fitting, TRACES_PENDING_MIN), TRACES_PENDING_MAX)
        simulator = await self._world.until_up()
        if simulator.traces_pending > traces_max or not simulator.has_room:
            return True
        return bool(self._bytes) and self._bytes + size > IN_FLIGHT_BYTES_MAX

    async def _send(self, number: int, arrival: RecordedRequest) -> None:
        begun = self._world.clock.now()
        try:
            response = None
            with anyio.move_on_after(CLIENT_SECONDS):
                response = await self._world.fetch(arrival.request, arrival.worker)
            if response is None:
                self.unanswered += 1
                return
            body = await read_all(response.body)
            self.responses[response.status] += 1
            self.latencies.add(self._world.clock.now() - begun)
            if number in self._wanted:
                self.answers[number] = Answered(response.status, body.decode("utf-8", "replace"))
        finally:
            self._bytes -= arrival.size
            self._slots.release()
