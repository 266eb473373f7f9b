"""Drive fixtures through a Simulator, on the real clock, and gather what came of them.

Requests enter where the HTTP server would hand them over; everything behind is the chain that
``dev`` runs.  At the end the Pipelines are rolled instead of waiting for their windows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import msgspec

from edgesim.backends import open_backends
from edgesim.clock import Clock
from edgesim.config import Environment, Project
from edgesim.errors import RunError, UsageError
from edgesim.model import HttpRequest, read_all
from edgesim.replay import expectations, fixture
from edgesim.replay.expectations import Expectations, Mismatch
from edgesim.replay.fixture import Arrival
from edgesim.simulator import Simulator, open_simulator

IN_FLIGHT_MAX = 64
DRAIN_SECONDS = 120.0


class Report(msgspec.Struct):
    """What a replay came to; seconds are real ones."""

    requests: int
    responses: dict[int, int]
    seconds: float
    drained: bool
    stats: dict[str, Any]
    mismatches: list[Mismatch] = []

    @property
    def ok(self) -> bool:
        """Whether everything arrived and is as expected."""
        return self.drained and not self.mismatches


async def replay(
    project: Project,
    fixtures: Sequence[Path],
    expected: Expectations | None,
    seed: int | None,
    progress: Callable[[int], None],
) -> Report:
    """Run the fixtures in order; RunError if a response never came."""
    clock = Clock(seed)
    async with (
        open_backends(project, Environment.read(), clock) as backends,
        open_simulator(project, backends, clock) as simulator,
    ):
        started = clock.elapsed()
        responses: Counter[int] = Counter()
        for path in fixtures:
            await _feed(simulator, fixture.read(path), responses, progress)
        if not responses:
            raise UsageError("the fixtures hold no request")
        drained = await simulator.drain(DRAIN_SECONDS)
        report = Report(
            requests=responses.total(),
            responses=dict(sorted(responses.items())),
            seconds=clock.elapsed() - started,
            drained=drained,
            stats=await simulator.stats(),
        )

        async def sql(statement: str) -> str:
            return await _ask(simulator, statement)

        if expected is not None:
            report.mismatches = await expectations.compare(expected, responses, sql)
        return report


async def _feed(
    simulator: Simulator,
    arrivals: Iterable[Arrival],
    responses: Counter[int],
    progress: Callable[[int], None],
) -> None:
    slots = anyio.Semaphore(IN_FLIGHT_MAX)

    async def send(arrival: Arrival) -> None:
        try:
            response = await simulator.fetch(arrival.request, arrival.worker)
            await read_all(response.body)
            responses[response.status] += 1
        finally:
            slots.release()

    async with anyio.create_task_group() as tasks:
        for arrival in arrivals:
            if arrival.worker is not None and arrival.worker not in simulator.workers:
                known = ", ".join(simulator.workers)
                raise UsageError(f"the fixture names Worker {arrival.worker!r}; known: {known}")
            await slots.acquire()
            tasks.start_soon(send, arrival)
            progress(responses.total())


async def _ask(simulator: Simulator, statement: str) -> str:
    url = f"http://clickhouse/?default_format={quote('JSONCompact')}"
    answer = await simulator.clickhouse(HttpRequest("POST", url, [], statement.encode()))
    text = (await read_all(answer.body)).decode("utf-8", "replace")
    if answer.status != 200:
        raise RunError(f"{statement}: {text.strip()}")
    return text
