"""Spans and log records in OpenTelemetry's form, sent by its exporters (OTLP over HTTP).

The spans are finished and have ids of their own, so they are given to the exporter as such; the
SDK's Tracer is for code that measures itself.  The thread that sends imports this module.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from functools import cache
from typing import Any

from opentelemetry._logs import LogRecord as OtelLogRecord
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace.span import TraceState

from edgesim.telemetry.records import LogRecord
from edgesim.tracing import Span, TraceContext

UNKNOWN = "the receiver did not accept the batch"
_SCOPE = InstrumentationScope("edgesim")
_KINDS = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}
_SEVERITIES = {
    "debug": SeverityNumber.DEBUG,
    "info": SeverityNumber.INFO,
    "log": SeverityNumber.INFO,
    "warn": SeverityNumber.WARN,
    "error": SeverityNumber.ERROR,
    "exception": SeverityNumber.ERROR,
}


class _LastMessage(logging.Handler):
    """Keeps the last message of each thread: the exporters report their errors by logging."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._kept = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.text = record.getMessage()

    def take(self) -> str:
        """Return the thread's last message and forget it."""
        text: str = getattr(self._kept, "text", "")
        self._kept.text = ""
        return text


@cache
def _messages() -> _LastMessage:
    handler = _LastMessage()
    logger = logging.getLogger("opentelemetry")
    logger.addHandler(handler)
    logger.propagate = False  # edgesim logs one line for an outage
    return handler


class SpanSender:
    """Sends spans to a URL; headers, timeout and more are OpenTelemetry's variables."""

    def __init__(self, url: str, service: str) -> None:
        _messages()
        self._service = service
        self._exporter = OTLPSpanExporter(endpoint=url)
        self._shutdown: Any = self._exporter.shutdown

    def send(self, batch: list[Span]) -> str:
        """See Sender."""
        _messages().take()
        result = self._exporter.export([_span(each, self._service) for each in batch])
        return "" if result is SpanExportResult.SUCCESS else _messages().take() or UNKNOWN

    def stop(self) -> None:
        """See Sender."""
        self._shutdown()


class LogSender:
    """Sends log records; see SpanSender."""

    def __init__(self, url: str, service: str) -> None:
        _messages()
        self._service = service
        self._exporter = OTLPLogExporter(endpoint=url)
        self._shutdown: Any = self._exporter.shutdown

    def send(self, batch: list[LogRecord]) -> str:
        """See Sender."""
        _messages().take()
        result = self._exporter.export([_record(each, self._service) for each in batch])
        return "" if result is LogRecordExportResult.SUCCESS else _messages().take() or UNKNOWN

    def stop(self) -> None:
        """See Sender."""
        self._shutdown()


@cache
def _resource(worker: str, service: str) -> Resource:
    """The service of a span: its Worker, or edgesim itself."""
    if not worker:
        return Resource.create({"service.name": service, "telemetry.sdk.name": "edgesim"})
    return Resource.create(
        {
            "service.name": worker,
            "faas.name": worker,
            "cloud.provider": "cloudflare",
            "cloud.platform": "cloudflare.workers",
            "cloudflare.script_name": worker,
            "telemetry.sdk.name": "edgesim",
        }
    )


def _context(context: TraceContext) -> SpanContext:
    state = TraceState.from_header([context.state]) if context.state else None
    flags = TraceFlags(TraceFlags.SAMPLED if context.sampled else TraceFlags.DEFAULT)
    return SpanContext(context.trace_id, context.span_id, False, flags, state)


def _span(span: Span, service: str) -> ReadableSpan:
    failed = span.error is not None
    return ReadableSpan(
        _clean(span.name),
        _context(span.context),
        parent=None if span.parent is None else _context(span.parent),
        resource=_resource(span.worker, service),
        attributes=_attributes(span.attributes),
        links=[Link(_context(each)) for each in span.links],
        kind=_KINDS[span.kind],
        status=Status(StatusCode.ERROR, _clean(span.error or "")) if failed else Status(),
        start_time=span.start_ns,
        end_time=max(span.start_ns, span.end_ns),
        instrumentation_scope=_SCOPE,
    )


def _record(record: LogRecord, service: str) -> ReadableLogRecord:
    context = None
    if record.context is not None:
        context = set_span_in_context(NonRecordingSpan(_context(record.context)))
    return ReadableLogRecord(
        OtelLogRecord(
            timestamp=record.time_ns,
            observed_timestamp=record.time_ns,
            context=context,
            severity_text=record.level.upper(),
            severity_number=_SEVERITIES.get(record.level, SeverityNumber.INFO),
            body=_clean(record.body),
            attributes=_attributes(record.attributes),
        ),
        _resource(record.worker, service),
        _SCOPE,
    )


def _attributes(given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: [_clean(each) for each in value] if isinstance(value, list) else _clean(value)
        for name, value in given.items()
        if value is not None
    }


def _clean(value: Any) -> Any:
    """A value that protobuf takes: no lone surrogates, and no integer beyond 64 bits."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 63:
        return str(value)
    return value
