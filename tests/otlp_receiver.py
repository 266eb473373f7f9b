"""A receiver of OTLP over HTTP: it decodes what exporters send, by OpenTelemetry's own protocol."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

SECONDS = 60
POLL_SECONDS = 0.05


class ReceivedSpan:
    """A span with plain attributes; ids in hex, ``parent`` empty for a root."""

    def __init__(self, resource: Mapping[str, Any], span: Any) -> None:
        self.resource = resource
        self.service: str = resource["service.name"]
        self.name: str = span.name
        self.trace: str = span.trace_id.hex()
        self.id: str = span.span_id.hex()
        self.parent: str = span.parent_span_id.hex()
        self.kind: int = span.kind
        self.start: int = span.start_time_unix_nano
        self.end: int = span.end_time_unix_nano
        self.state: str = span.trace_state
        self.attributes = plain(span.attributes)
        self.links = [(link.trace_id.hex(), link.span_id.hex()) for link in span.links]
        self.failed: bool = span.status.code == 2
        self.problem: str = span.status.message

    def __repr__(self) -> str:
        return f"<{self.service} {self.name} {self.trace[:6]}/{self.id[:6]} in {self.parent[:6]}>"


class ReceivedLog:
    """A log record with plain attributes."""

    def __init__(self, resource: Mapping[str, Any], record: Any) -> None:
        self.service: str = resource["service.name"]
        self.trace: str = record.trace_id.hex()
        self.span: str = record.span_id.hex()
        self.body: str = record.body.string_value
        self.severity: str = record.severity_text
        self.at: int = record.time_unix_nano
        self.attributes = plain(record.attributes)


class OtlpReceiver:
    """A receiver and all that it has got; ``status`` is the reply to all further requests."""

    def __init__(self) -> None:
        self.spans: list[ReceivedSpan] = []
        self.logs: list[ReceivedLog] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self.held = threading.Event()
        """While it is not set, requests get no reply."""
        self.held.set()
        self.url = ""

    def take(self, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
        """Decode a request and return the reply's body; ``headers`` have lower-case names."""
        self.headers.append(dict(headers))
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if path == "/v1/traces":
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                resource = plain(group.resource.attributes)
                for scope in group.scope_spans:
                    self.spans += [ReceivedSpan(resource, span) for span in scope.spans]
            return bytes(ExportTraceServiceResponse().SerializeToString())
        assert path == "/v1/logs"
        for group in ExportLogsServiceRequest.FromString(body).resource_logs:
            resource = plain(group.resource.attributes)
            for scope in group.scope_logs:
                self.logs += [ReceivedLog(resource, record) for record in scope.log_records]
        return bytes(ExportLogsServiceResponse().SerializeToString())

    def named(self, name: str, service: str = "") -> list[ReceivedSpan]:
        """The spans of that name, oldest first."""
        found = [each for each in list(self.spans) if each.name == name]
        return sorted(
            (each for each in found if service in {"", each.service}), key=lambda each: each.start
        )

    def wait_for(self, name: str, service: str = "", count: int = 1) -> list[ReceivedSpan]:
        """Wait until that many spans of a name have arrived."""
        self.wait_until(lambda: len(self.named(name, service)) >= count)
        return self.named(name, service)

    def wait_until(self, condition: Any) -> None:
        """Wait for a condition on what has arrived."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, self.spans
            time.sleep(POLL_SECONDS)

    def reachable_from(self, trace: str) -> list[ReceivedSpan]:
        """The spans of a trace, and of those that are linked to one found already."""
        traces = {trace}
        while True:
            found = [each for each in self.spans if each.trace in traces]
            linked = {
                each.trace
                for each in self.spans
                if any(link_trace in traces for link_trace, _ in each.links)
            }
            if linked <= traces:
                return found
            traces |= linked


def plain(attributes: Any) -> dict[str, Any]:
    """The attributes as Python values."""
    return {each.key: _value(each.value) for each in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind)


@contextmanager
def receiving(port: int = 0) -> Iterator[OtlpReceiver]:
    """Serve on a free port of loopback, or on that one."""
    receiver = OtlpReceiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.held.wait(SECONDS)
            reply, status = b"", receiver.status
            if status == 200:
                headers = {name.lower(): value for name, value in self.headers.items()}
                reply = receiver.take(self.path, headers, body)
            self.send_response(status)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,))
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield receiver
    finally:
        receiver.held.set()
        server.shutdown()
        thread.join()
        server.server_close()
