"""Spans and trace context (W3C), independent of any exporter.

The context of the work in progress is in ``current``; it is None while nothing is exported, and
then nothing here runs.  What is stored or queued carries a context as text, so that the work of
another task, or of another node, continues the trace.

Work that joins several events (a batch, a window) has one parent only if all of them belong to one
trace; otherwise it begins a trace of its own, with a link to each of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import msgspec

from edgesim.clock import Clock

LINKS_MAX = 1000
"""Maximum links of a span: sources beyond it are counted only."""
STATE_CHARS_MAX = 512
"""A longer ``tracestate`` is not passed on (https://www.w3.org/TR/trace-context/)."""
TEXT_CHARS_MAX = 1000
"""Longer texts in attributes are cut."""
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attributes = dict[str, Any]


class TraceContext(msgspec.Struct, frozen=True):
    """Identity of a span; ``state`` is the ``tracestate`` of other tracing systems."""

    trace_id: int
    span_id: int
    sampled: bool = True
    state: str = ""

    def traceparent(self) -> str:
        """The context as the header ``traceparent``, which is also its text in stores."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"


current: ContextVar[TraceContext | None] = ContextVar("edgesim_trace", default=None)
"""Span of the work in progress; None outside of any trace."""


def parsed(traceparent: str | None, state: str | None = None) -> TraceContext | None:
    """Read a ``traceparent``; None if there is none or it is invalid."""
    found = _PARENT.fullmatch((traceparent or "").strip())
    if found is None:
        return None
    version, trace, span, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest) or not int(trace, 16) or not int(span, 16):
        return None
    kept = state.strip() if state and len(state) <= STATE_CHARS_MAX else ""
    return TraceContext(int(trace, 16), int(span, 16), bool(int(flags, 16) & 1), kept)


def carried() -> str:
    """Text of the current context, to be stored with a message; empty without one."""
    context = current.get()
    return "" if context is None else context.traceparent()


@contextmanager
def using(context: TraceContext | None) -> Iterator[None]:
    """Make ``context`` the current one in the block."""
    token = current.set(context)
    try:
        yield
    finally:
        current.reset(token)


class TraceSources:
    """Distinct contexts that a batch joins; ``left_out`` counts those beyond LINKS_MAX."""

    def __init__(self, contexts: Iterable[TraceContext | None] = ()) -> None:
        self.contexts: dict[TraceContext, None] = {}
        self.left_out = 0
        for context in contexts:
            self.add(context)

    def add(self, context: TraceContext | None) -> None:
        """Add a context, unless it is there; None is ignored."""
        if context is None or context in self.contexts:
            return
        if len(self.contexts) < LINKS_MAX:
            self.contexts[context] = None
        else:
            self.left_out += 1


class Span(msgspec.Struct):
    """A finished span; times in Unix nanoseconds.  ``worker`` is empty for edgesim's own work."""

    name: str
    context: TraceContext
    parent: TraceContext | None
    kind: Kind
    start_ns: int
    end_ns: int = 0
    attributes: Attributes = {}
    links: list[TraceContext] = []
    error: str | None = None
    worker: str = ""


class Begun(msgspec.Struct):
    """Place of a new span in the traces: its context, its parent, its links."""

    context: TraceContext
    parent: TraceContext | None
    links: list[TraceContext] = []
    left_out: int = 0


class Tracer:
    """Source of spans.  ``emit`` takes finished ones and must not wait.

    ``sample(worker, trace_id)`` decides for a new trace; ``follows_parent`` False: for every span
    without a local parent, whatever its caller decided.
    """

    def __init__(
        self,
        clock: Clock,
        emit: Callable[[Span], None],
        sample: Callable[[str, int], bool],
        *,
        follows_parent: bool = True,
    ) -> None:
        self.emit = emit
        self._clock = clock
        self._sample = sample
        self._follows_parent = follows_parent

    def now_ns(self) -> int:
        """Unix time in nanoseconds."""
        return int(self._clock.now() * 1e9)

    def begin(
        self,
        worker: str,
        parent: TraceContext | None = None,
        sources: TraceSources | None = None,
        *,
        remote: bool = False,
    ) -> Begun:
        """Place a new span below ``parent``, or below or beside the ``sources`` of a batch.

        ``remote``: the parent is a client's, whose decision to sample need not be followed.
        """
        joined = list(sources.contexts) if sources is not None and parent is None else []
        links: list[TraceContext] = []
        if joined:
            one_trace = len({each.trace_id for each in joined}) == 1
            parent, links = (joined[0], joined[1:]) if one_trace else (None, joined)
        left_out = sources.left_out if sources is not None and joined else 0
        if parent is not None:
            trace_id, state = parent.trace_id, parent.state
            sampled = parent.sampled or any(each.sampled for each in links)
            if remote and not self._follows_parent:
                sampled = self._sample(worker, trace_id)
        else:
            trace_id, state = self._clock.random.getrandbits(128) or 1, ""
            sampled = (
                any(each.sampled for each in links) if links else self._sample(worker, trace_id)
            )
        context = TraceContext(trace_id, self._span_id(), sampled, state)
        return Begun(context, parent, links, left_out)

    def child(self, parent: TraceContext) -> TraceContext:
        """Return the context of a span inside of ``parent``."""
        return TraceContext(parent.trace_id, self._span_id(), parent.sampled, parent.state)

    def _span_id(self) -> int:
        return self._clock.random.getrandbits(64) or 1

    @contextmanager
    def span(
        self,
        name: str,
        kind: Kind = "internal",
        attributes: Mapping[str, Any] | None = None,
        *,
        parent: TraceContext | None = None,
        sources: TraceSources | None = None,
        started_at: float | None = None,
        worker: str = "",
        remote: bool = False,
    ) -> Iterator[Span]:
        """Record the block as a span, which is current in it; an exception is its error.

        ``started_at`` (Unix seconds) is the span's start, if that was earlier.
        """
        begun = self.begin(worker, parent, sources, remote=remote)
        start = self.now_ns() if started_at is None else int(started_at * 1e9)
        given = dict(attributes or {})
        if begun.left_out:
            given["edgesim.links.left_out"] = begun.left_out
        span = Span(
            name, begun.context, begun.parent, kind, start, 0, given, begun.links, None, worker
        )
        token = current.set(begun.context)
        try:
            yield span
        except BaseException as error:
            span.error = f"{type(error).__name__}: {error}"[:TEXT_CHARS_MAX]
            span.attributes["error.type"] = type(error).__name__
            raise
        finally:
            current.reset(token)
            span.end_ns = self.now_ns()
            if begun.context.sampled:
                self.emit(span)
