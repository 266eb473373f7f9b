"""Spans of one invocation: its own, which is emitted when it has finished, and those of its calls.

The calls of a Worker run in tasks of their own, so the span that is current in one of them is that
of the call: what the call causes (another Worker, a record in a window, a message) continues there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from edgesim.config import WorkerConfig
from edgesim.errors import PlatformError
from edgesim.isolates.protocol.wire import Call
from edgesim.runtime import call_attributes
from edgesim.runtime.call_attributes import Resource
from edgesim.tracing import Begun, TraceContext, Tracer, using

SPANS_MAX = 1000
"""Maximum spans of one invocation's calls; further calls have none, and are counted."""


def resources_of(config: WorkerConfig) -> dict[str, Resource]:
    """Kind and target of each binding of a Worker, by the binding's name."""
    settings = config.settings
    found: dict[str, Resource] = {}
    found |= {each.binding: ("r2", each.bucket_name) for each in settings.r2_buckets}
    found |= {each.binding: ("kv", each.id) for each in settings.kv_namespaces}
    found |= {each.binding: ("queue", each.queue) for each in settings.queues.producers}
    datasets = settings.analytics_engine_datasets
    found |= {each.binding: ("analytics", each.name) for each in datasets}
    found |= {each.binding: ("pipeline", each.target) for each in settings.pipelines}
    found |= {each.binding: ("service", each.service) for each in settings.services}
    return found


class InvocationSpans:
    """Place of an invocation in the traces, and the source of its calls' spans.

    ``is_recorded`` False: the Worker has no spans (``observability``), and its calls continue its
    caller's.
    """

    def __init__(
        self,
        tracer: Tracer,
        worker: str,
        begun: Begun,
        resources: Mapping[str, Resource],
        *,
        is_recorded: bool = True,
    ) -> None:
        self.begun = begun
        self.context: TraceContext | None = begun.context if is_recorded else begun.parent
        """The context that its calls continue."""
        self.started_ns = tracer.now_ns()
        self.responded_ns: int | None = None
        """Time of the response's head, in Unix nanoseconds; None without one."""
        self.left_out = 0
        """Number of calls beyond SPANS_MAX."""
        self.is_recorded = is_recorded and begun.context.sampled
        self._tracer = tracer
        self._worker = worker
        self._resources = resources
        self._count = 0

    @property
    def invocation_id(self) -> str:
        """Identity of the invocation: the id of its span, in hex."""
        return f"{self.begun.context.span_id:016x}"

    def next_number(self) -> int:
        """Number of the next span or log record of the invocation, from 1."""
        self._count += 1
        return self._count

    def responded(self) -> None:
        """Note the time of the response."""
        if self.responded_ns is None:
            self.responded_ns = self._tracer.now_ns()

    async def observe(self, call: Call, run: Callable[[Call], Awaitable[Any]]) -> Any:
        """Run a call as a span; PlatformError and others as ``run`` raises them."""
        resource = self._resources.get(call.binding)
        name = call_attributes.name_of(call, resource) if self.is_recorded else ""
        if not name or self._count >= SPANS_MAX:
            self.left_out += bool(name)
            with using(self.context):
                return await run(call)
        attributes = call_attributes.before(call, resource)
        attributes["faas.invocation_id"] = self.invocation_id
        attributes["cloudflare.invocation.sequence.number"] = self.next_number()
        kind = call_attributes.kind_of(name)
        with self._tracer.span(
            name, kind, attributes, parent=self.context, worker=self._worker
        ) as span:
            try:
                result = await run(call)
            except PlatformError as error:
                if resource is not None and resource[0] == "r2":
                    span.attributes |= {
                        "cloudflare.r2.response.success": False,
                        "cloudflare.r2.error.message": error.message,
                    }
                raise
            span.attributes |= call_attributes.after(call, resource, result)
            return result
