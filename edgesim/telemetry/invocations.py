"""A finished invocation as a span and as log records, with Cloudflare's names.

Sources: https://developers.cloudflare.com/workers/observability/traces/spans-and-attributes/ and
https://developers.cloudflare.com/workers/observability/logs/workers-logs/.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from edgesim.config.wrangler import Exported
from edgesim.runtime.call_attributes import of_url
from edgesim.runtime.failure import status_of
from edgesim.runtime.finished import FinishedInvocation
from edgesim.runtime.redaction import redact_url
from edgesim.runtime.spans import InvocationSpans
from edgesim.telemetry.records import LogRecord
from edgesim.tracing import TEXT_CHARS_MAX, Attributes, Kind, Span

_LOW = (1 << 64) - 1
BODY_CHARS_MAX = 16_384
"""Longer log lines are cut."""
_TRIGGERS = {"fetch": "http", "scheduled": "cron", "queue": "queue", "tail": "tail", "rpc": "rpc"}
_KINDS: dict[str, Kind] = {"fetch": "server", "rpc": "server", "queue": "consumer"}
_CF = {
    "colo": "cloudflare.colo",
    "asn": "cloudflare.asn",
    "timezone": "geo.timezone",
    "continent": "geo.continent.code",
    "country": "geo.country.code",
    "city": "geo.locality.name",
    "region": "geo.locality.region",
}
_HEADERS = ("accept", "accept-encoding", "accept-language", "content-type", "content-length")


def span_of(finished: FinishedInvocation, spans: InvocationSpans, exported: Exported) -> Span:
    """The span of an invocation."""
    item, begun = finished.item, spans.begun
    attributes = common_attributes(finished, spans) | {
        "cloudflare.handler_type": finished.handler,
        "cloudflare.entrypoint": finished.entrypoint,
        "cloudflare.execution_model": item.execution_model,
        "cloudflare.outcome": item.outcome,
        "cloudflare.cpu_time": item.cpu_time,
        "cloudflare.wall_time": item.wall_time,
        "cloudflare.invocation.sequence.number": 0,
    }
    attributes |= _event(finished, spans)
    if spans.left_out:
        attributes["edgesim.spans.left_out"] = spans.left_out
    if begun.left_out:
        attributes["edgesim.links.left_out"] = begun.left_out
    if exported.redact_query_string:
        _redact(attributes)
    error = None
    if item.outcome != "ok":
        cause = item.exceptions[0] if item.exceptions else None
        error = item.outcome if cause is None else f"{cause.name}: {cause.message}"
        attributes["error.type"] = item.outcome if cause is None else cause.name
    return Span(
        f"{finished.handler}_handler",
        begun.context,
        begun.parent,
        _KINDS.get(finished.handler, "internal"),
        spans.started_ns,
        spans.started_ns + int(item.wall_time * 1e6),
        attributes,
        begun.links,
        None if error is None else error[:TEXT_CHARS_MAX],
        item.script_name,
    )


def records_of(
    finished: FinishedInvocation, spans: InvocationSpans, exported: Exported
) -> Iterator[LogRecord]:
    """The log records of an invocation: console lines, exceptions, then the invocation itself."""
    item = finished.item
    context = spans.begun.context if spans.is_recorded else None
    common = common_attributes(finished, spans)

    def record(at_ms: float, level: str, body: str, more: Mapping[str, Any]) -> LogRecord:
        number = {"cloudflare.invocation.sequence.number": spans.next_number()}
        attributes = {**common, **number, **more}
        if exported.redact_query_string:
            _redact(attributes)
        cut = body[:BODY_CHARS_MAX]
        return LogRecord(int(at_ms * 1e6), level, cut, context, item.script_name, attributes)

    for entry in item.logs:
        text = " ".join(map(_text, entry.message))
        yield record(entry.timestamp, entry.level, text, {})
    for exception in item.exceptions:
        texts = {"exception.type": exception.name, "exception.message": exception.message}
        if exception.stack is not None:
            texts["exception.stacktrace"] = exception.stack
        more: Attributes = {name: text[:BODY_CHARS_MAX] for name, text in texts.items()}
        text = f"{exception.name}: {exception.message}"
        yield record(exception.timestamp, "exception", text, more)
    if exported.invocation_logs:
        more = {
            "cloudflare.outcome": item.outcome,
            "cloudflare.cpu_time": item.cpu_time,
            "cloudflare.wall_time": item.wall_time,
        } | _event(finished, spans)
        if exported.redact_query_string:
            _redact(more)
        level = "info" if item.outcome == "ok" else "error"
        yield record(item.event_timestamp, level, _summary(finished, more), more)


def common_attributes(finished: FinishedInvocation, spans: InvocationSpans) -> Attributes:
    """Attributes of the invocation's span and of all its log records."""
    version = (finished.item.script_version or {}).get("id")
    found: Attributes = {
        "faas.trigger": _TRIGGERS[finished.handler],
        "faas.invocation_id": spans.invocation_id,
    }
    if version is not None:
        found |= {"faas.version": version, "cloudflare.script_version.id": version}
    if finished.handler == "fetch":
        found["cloudflare.ray_id"] = f"{spans.begun.context.trace_id & _LOW:016x}"
    return found


def _event(finished: FinishedInvocation, spans: InvocationSpans) -> Attributes:
    event = finished.item.event or {}
    match finished.handler:
        case "fetch":
            return _request(finished, spans, event)
        case "queue":
            return {
                "cloudflare.queue.name": event["queue"],
                "cloudflare.queue.batch_size": event["batchSize"],
            }
        case "scheduled":
            return {
                "faas.cron": event["cron"],
                "cloudflare.scheduled_time": event["scheduledTime"],
            }
        case "tail":
            return {"cloudflare.trace.count": len(event["consumedEvents"])}
        case _:
            return {"cloudflare.jsrpc.method": event["rpcMethod"][:TEXT_CHARS_MAX]}


def _request(
    finished: FinishedInvocation, spans: InvocationSpans, event: Mapping[str, Any]
) -> Attributes:
    request = event["request"]
    found = of_url(redact_url(request["url"])) if request["url"] else {}
    found["http.request.method"] = request["method"]
    headers = request["headers"]
    for name in _HEADERS:
        if name in headers:
            found[f"http.request.header.{name}"] = headers[name][:TEXT_CHARS_MAX]
    if "user-agent" in headers:
        found["user_agent.original"] = headers["user-agent"][:TEXT_CHARS_MAX]
    cf: Mapping[str, Any] = request.get("cf") or {}
    for name, attribute in _CF.items():
        if isinstance(cf.get(name), str | int | float):
            found[attribute] = cf[name]
    protocol = cf.get("httpProtocol")
    if isinstance(protocol, str) and "/" in protocol:
        name, _, version = protocol.partition("/")
        found |= {"network.protocol.name": name.lower(), "network.protocol.version": version}
    response = event.get("response")
    if response is not None:
        found["http.response.status_code"] = response["status"]
    elif finished.item.outcome != "canceled":
        found["http.response.status_code"] = status_of(finished.item.outcome)
    if finished.reply is not None:
        found["http.response.body.size"] = len(finished.reply)
    if spans.responded_ns is not None:
        elapsed = (spans.responded_ns - spans.started_ns) / 1e6
        found["cloudflare.response.time_to_first_byte_ms"] = round(elapsed, 3)
    return found


def _summary(finished: FinishedInvocation, attributes: Mapping[str, Any]) -> str:
    """The text of the record of an invocation: what it was for."""
    match finished.handler:
        case "fetch":
            return f"{attributes['http.request.method']} {attributes.get('url.full', '')}"
        case "queue":
            return str(attributes["cloudflare.queue.name"])
        case "scheduled":
            return str(attributes["faas.cron"])
        case "tail":
            return f"{attributes['cloudflare.trace.count']} traces"
        case _:
            return str(attributes["cloudflare.jsrpc.method"])


def _redact(attributes: Attributes) -> None:
    attributes.pop("url.query", None)
    if "url.full" in attributes:
        attributes["url.full"] = attributes["url.full"].partition("?")[0]


def _text(part: Any) -> str:
    if isinstance(part, str):
        return part
    return msgspec.json.encode(part, enc_hook=repr).decode()
