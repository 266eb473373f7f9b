"""Where is this event: every place of a project that holds a text, in the order of the stages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from edgesim.config import Project
from edgesim.errors import EdgesimError, UsageError
from edgesim.model import TraceItem
from edgesim.observation.messages import in_queue
from edgesim.observation.records import in_bucket, in_pipelines
from edgesim.observation.sighting import Needle, Sighting
from edgesim.observation.tables import in_tables
from edgesim.observation.traces import in_tails, in_traces
from edgesim.runtime.trace import shown
from edgesim.simulator import Simulator

TEXT_CHARS_MAX = 1000


async def locate(
    simulator: Simulator, traces: Sequence[TraceItem], text: str
) -> AsyncIterator[Sighting]:
    """Yield the places that hold ``text``, or held it.

    ``traces`` are the finished invocations to search.  A store that fails becomes a sighting of
    the stage "not searched".  UsageError for an empty or too long text.
    """
    if not 0 < len(text) <= TEXT_CHARS_MAX:
        raise UsageError(f"the text to search for must have 1 to {TEXT_CHARS_MAX} characters")
    needle = Needle(text)
    items = sorted(map(shown, traces), key=lambda item: item.event_timestamp)
    async for found in in_traces(items, needle):
        yield found
    for found in in_tails(simulator.primitives.tails, needle):
        yield found
    async for found in in_pipelines(simulator.primitives.buffers, needle):
        yield found
    keys: set[str] = set()
    for name in sorted(simulator.primitives.bucket_names()):
        async for found in _or_reason(
            f"bucket {name}", in_bucket(simulator.primitives.bucket(name), needle)
        ):
            if found.stage == "object":
                keys.add(found.place.removeprefix(f"{name}/"))
            yield found
    dead_letters = _dead_letters(simulator.project)
    for name in sorted(simulator.primitives.queue_names()):
        search = in_queue(
            simulator.primitives.queue(name), needle, sorted(keys), dead_letters.get(name, [])
        )
        async for found in _or_reason(f"queue {name}", search):
            yield found
    async for found in _or_reason("ClickHouse", in_tables(simulator.primitives.clickhouse, needle)):
        yield found


async def _or_reason(place: str, search: AsyncIterator[Sighting]) -> AsyncIterator[Sighting]:
    """The sightings of a search; if its store fails, the reason as the last one."""
    try:
        async for found in search:
            yield found
    except EdgesimError as error:
        yield Sighting("not searched", place, detail={"reason": str(error)})


def _dead_letters(project: Project) -> dict[str, list[str]]:
    """The queues whose dead letters each queue takes."""
    sources: dict[str, list[str]] = {}
    for worker in project.workers.values():
        for consumer in worker.settings.queues.consumers:
            if consumer.dead_letter_queue:
                sources.setdefault(consumer.dead_letter_queue, []).append(consumer.queue)
    return sources
