"""The exporter of a running project: it takes finished invocations and spans."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import structlog

from edgesim import urls
from edgesim.clock import Clock
from edgesim.config import Project
from edgesim.config.observability import ExportTarget
from edgesim.config.wrangler import Exported
from edgesim.errors import ConfigError
from edgesim.runtime.finished import FinishedInvocation, InvocationSink
from edgesim.telemetry.invocations import records_of, span_of
from edgesim.telemetry.queue_thread import QueueThread, Sender
from edgesim.telemetry.records import LogRecord, bytes_of
from edgesim.tracing import Span, Tracer

CLOSE_SECONDS = 5.0
"""Maximum time of the last export."""
LIBRARY = "opentelemetry.exporter.otlp.proto.http"
MISSING = "the OpenTelemetry packages are not installed"
CURE = "pip install 'edgesim[otel]'"
_ALL = Exported()
_ID_BITS = 64

log = structlog.get_logger()


class Exporter:
    """An InvocationSink in front of another; ``tracer`` is None if only logs are exported."""

    def __init__(
        self,
        target: ExportTarget,
        clock: Clock,
        sink: InvocationSink,
    ) -> None:
        self.target = target
        self._sink = sink
        self._exported: Mapping[str, Exported] = {}
        self._traces: QueueThread[Span] | None = None
        self._logs: QueueThread[LogRecord] | None = None
        size = target.queue_size
        if target.traces is not None:
            self._traces = QueueThread("traces", target.traces, self._spans_to, bytes_of, size)
        if target.logs is not None:
            self._logs = QueueThread("logs", target.logs, self._records_to, bytes_of, size)
        self.tracer = Tracer(
            clock, self._emit, self._is_sampled, follows_parent=target.follows_parent
        )

    def use(self, project: Project) -> None:
        """Heed the settings of that project's wrangler files."""
        self._exported = {
            name: worker.settings.exported for name, worker in project.workers.items()
        }

    def counters(self) -> dict[str, int]:
        """Counts since the start, of spans and log records."""
        traces, logs = self._traces, self._logs
        threads = [each for each in (traces, logs) if each is not None]
        return {
            "spans": 0 if traces is None else traces.exported,
            "logs": 0 if logs is None else logs.exported,
            "pending": sum(each.pending for each in threads),
            "dropped": sum(each.dropped for each in threads),
            "failed": sum(each.failed for each in threads),
        }

    def finished(self, invocation: FinishedInvocation) -> None:
        """Queue the span and the log records of an invocation."""
        self._sink.finished(invocation)
        spans = invocation.spans
        if spans is None:
            return
        exported = self._exported.get(invocation.item.script_name, _ALL)
        if spans.is_recorded and self._traces is not None:
            self._traces.put(span_of(invocation, spans, exported))
        if self._logs is not None and _share(exported.logs, spans.begun.context.span_id):
            for record in records_of(invocation, spans, exported):
                self._logs.put(record)

    async def close(self) -> None:
        """Send what waits, for at most CLOSE_SECONDS."""
        async with anyio.create_task_group() as tasks:
            for thread in (self._traces, self._logs):
                if thread is not None:
                    tasks.start_soon(thread.close, CLOSE_SECONDS)

    def _emit(self, span: Span) -> None:
        if self._traces is not None:
            self._traces.put(span)

    def _is_sampled(self, worker: str, trace_id: int) -> bool:
        exported = self._exported.get(worker)
        rate = self.target.sample_rate
        if exported is not None and exported.traces != 1:
            rate = exported.traces
        return self._traces is not None and _share(rate, trace_id)

    def _spans_to(self, url: str) -> Sender[Span]:
        from edgesim.telemetry.otlp import SpanSender  # slow import, in its thread

        return SpanSender(url, self.target.service)

    def _records_to(self, url: str) -> Sender[LogRecord]:
        from edgesim.telemetry.otlp import LogSender

        return LogSender(url, self.target.service)


def _share(rate: float, number: int) -> bool:
    """True for that share of random numbers, and for the same ones on every node."""
    return (number & ((1 << _ID_BITS) - 1)) < rate * (1 << _ID_BITS)


def required_exporter(target: ExportTarget | None, file: Path) -> ExportTarget | None:
    """Return the target if it can be used, else None with a warning.

    ConfigError if edgesim.toml names it and the extra is not installed: a variable may be meant for
    other programs.
    """
    if target is None:
        return None
    for problem in target.problems:
        log.warning("telemetry setting without effect", problem=problem)
    if is_installed():
        return target
    if target.is_required:
        raise ConfigError(file, target.source, f"{MISSING}; {CURE}")
    log.warning("telemetry is not exported", reason=MISSING, source=target.source, cure=CURE)
    return None


def is_installed() -> bool:
    """True if the extra ``otel`` is installed."""
    try:
        return importlib.util.find_spec(LIBRARY) is not None
    except ModuleNotFoundError:  # a package that contains it is missing
        return False


@asynccontextmanager
async def open_exporter(
    project: Project, clock: Clock, sink: InvocationSink
) -> AsyncIterator[Exporter | None]:
    """Export to the project's target until the end; yields None if there is none.

    ConfigError if the extra is missing and edgesim.toml names a target.
    """
    target = required_exporter(project.export, project.file)
    if target is None:
        yield None
        return
    exporter = Exporter(target, clock, sink)
    exporter.use(project)
    places = {"traces": target.traces, "logs": target.logs}
    shown = {name: urls.redact(url) for name, url in places.items() if url}
    log.info("telemetry is exported", **shown)
    try:
        yield exporter
    finally:
        with anyio.CancelScope(shield=True):
            await exporter.close()
