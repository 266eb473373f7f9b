"""Traces and logs of a running project, as a real OTLP receiver gets them."""

import json
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.otlp_receiver import SECONDS, receiving
from tests.processes import ROOT, WORKERS, dev, edgesim
from tests.simulated import write_worker

EVENT = {"event": "kill", "player_id": "p1", "ts": 1767225600000, "props": {"damage": 7}}
TRACE, CLIENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{CLIENT}-01", "tracestate": "vendor=1"}
SERVER, CLIENT_KIND, PRODUCER, CONSUMER = 2, 3, 4, 5


@contextmanager
def exporting(project, state, monkeypatch, *arguments, **variables):
    """Run a project that exports to a receiver; yields both."""
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with dev(project, state, "--no-reload", *arguments) as running:
            yield running, receiver


def chain(span, spans):
    """The names of a span and its ancestors, the root first."""
    by_id = {each.id: each for each in spans}
    names = [span.name]
    while span.parent in by_id:
        span = by_id[span.parent]
        names.insert(0, span.name)
    return names


@pytest.mark.parametrize("isolation", ["warm", "process", "inline"])
def test_one_event_is_one_trace(tmp_path, monkeypatch, isolation):
    """From the client's span to the insert into ClickHouse, at every level."""
    arguments = ("--isolation", isolation)
    with exporting(WORKERS, tmp_path / "state", monkeypatch, *arguments) as (running, receiver):
        assert running.request(body=json.dumps(EVENT).encode(), headers=TRACEPARENT)[0] == 200
        running.drain()
        assert running.stop() == 0
    spans = [each for each in receiver.spans if each.trace == TRACE]
    (insert,) = receiver.named("clickhouse_insert")
    assert chain(insert, spans) == [
        "fetch_handler",
        "tail_handler",
        "pipeline_send",
        "pipeline_window",
        "r2_event_notification",
        "queue_handler",
        "fetch",
        "clickhouse_insert",
    ]
    assert len(spans) == len(receiver.spans)
    (root,) = receiver.named("fetch_handler")
    assert (root.parent, root.service, root.kind) == (CLIENT, "receiver", SERVER)
    assert {each.state for each in receiver.named("tail_handler")} == {"vendor=1"}
    assert not any(each.failed for each in spans)
    assert insert.attributes["db.system.name"] == "clickhouse"
    assert insert.attributes["db.operation.name"] == "INSERT"
    assert insert.attributes["db.collection.name"] == "events"
    assert insert.attributes["edgesim.clickhouse.written_rows"] == 1
    assert all(each.start <= each.end for each in spans)
    (log,) = [each for each in receiver.logs if "PIPE_ME" in each.body]
    assert (log.trace, log.span, log.service) == (TRACE, root.id, "receiver")
    assert log.attributes["faas.invocation_id"] == root.attributes["faas.invocation_id"]


def test_each_of_many_events_is_followed_by_links(tmp_path, monkeypatch):
    """Batches of several traces are traces of their own, with a link to each; all are followed."""
    with exporting(WORKERS, tmp_path / "state", monkeypatch) as (running, receiver):
        traces = [f"{number:032x}" for number in range(1, 31)]
        for trace in traces:
            headers = {"traceparent": f"00-{trace}-{CLIENT}-01"}
            body = json.dumps(EVENT).encode()
            assert running.request(body=body, headers=headers)[0] == 200
        running.drain()
        assert running.stop() == 0
    assert sum(
        each.attributes["edgesim.clickhouse.written_rows"]
        for each in receiver.named("clickhouse_insert")
    ) == len(traces)
    for trace in traces:
        found = {each.name for each in receiver.reachable_from(trace)}
        assert {"fetch_handler", "pipeline_window", "queue_handler", "clickhouse_insert"} <= found
    joining = [each for each in receiver.named("tail_handler") if len(each.links) > 1]
    assert joining
    assert not any(each.parent for each in joining)


FIRST = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        env = self.env
        print("path", "a", {"b": 1})
        await env.BUCKET.put("folder/key", "some text", httpMetadata={"contentType": "text/plain"})
        found = await env.BUCKET.get("folder/key")
        await found.text()
        await env.KV.put("name", "value", expirationTtl=60)
        await env.KV.get("name")
        await env.QUEUE.send({"a": 1})
        answer = await env.SECOND.fetch("http://second/there?q=1")
        await env.SECOND.add(1, 2)
        if "outside" in request.url:
            await fetch(request.url.partition("outside=")[2], headers={
                "traceparent": request.headers["traceparent"]
            })
        if "fail" in request.url:
            await env.BUCKET.put("x" * 2000, "too long a key")
        return Response(await answer.text(), status=201)
    async def queue(self, batch, env, ctx):
        print("got", len(batch.messages))
"""
SECOND = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("hello")
    async def add(self, a, b):
        return a + b
"""
BINDINGS = {
    "r2_buckets": [{"binding": "BUCKET", "bucket_name": "things"}],
    "kv_namespaces": [{"binding": "KV", "id": "names"}],
    "queues": {
        "producers": [{"binding": "QUEUE", "queue": "jobs"}],
        "consumers": [{"queue": "jobs", "max_batch_timeout": 0}],
    },
    "services": [{"binding": "SECOND", "service": "second"}],
}


def write_project(folder, second=None, **settings):
    write_worker(folder, "first", FIRST, **BINDINGS, **settings)
    write_worker(folder, "second", SECOND, **(second or {}))
    (folder / "edgesim.toml").write_text('workers = ["first", "second"]\n')
    return folder


@contextmanager
def server():
    """An HTTP server outside of edgesim; yields its URL and the headers that it is sent."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(dict(self.headers.items()))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_address[1]}/", seen
        finally:
            running.shutdown()
            thread.join()


def test_calls_have_the_platforms_names_and_attributes(tmp_path, monkeypatch):
    """Spans of R2, KV, queues, services and fetch; the context goes on to every one of them."""
    project = write_project(tmp_path)
    with (
        server() as (url, seen),
        exporting(project, tmp_path / "state", monkeypatch) as (running, receiver),
    ):
        status, _ = running.request(f"/x?outside={url}", method="GET", headers=TRACEPARENT)
        assert status == 201
        receiver.wait_for("queue_handler")
        assert running.stop() == 0
    assert {each.trace for each in receiver.spans} == {TRACE}
    root, called = receiver.named("fetch_handler")
    assert root.attributes["http.response.status_code"] == 201
    assert root.attributes["http.request.method"] == "GET"
    assert root.attributes["url.path"] == "/x"
    assert root.attributes["faas.trigger"] == "http"
    assert root.attributes["cloudflare.handler_type"] == "fetch"
    assert root.attributes["cloudflare.outcome"] == "ok"
    assert root.attributes["cloudflare.colo"] == "LIS"
    assert root.resource["cloudflare.script_name"] == root.resource["faas.name"] == "first"
    assert root.resource["cloud.platform"] == "cloudflare.workers"
    assert len(root.attributes["cloudflare.ray_id"]) == 16
    own = sorted(
        (each for each in receiver.spans if each.parent == root.id), key=lambda each: each.start
    )
    assert [each.name for each in own][:7] == [
        *("r2_put", "r2_get", "kv_put", "kv_get", "queue_send", "fetch", "jsRpcSession"),
    ]
    put, _, kv_put, kv_get, send, subrequest, rpc, outside = own[:8]
    assert (
        put.attributes
        | {
            "cloudflare.binding.name": "BUCKET",
            "cloudflare.binding.type": "r2",
            "cloudflare.r2.bucket": "things",
            "cloudflare.r2.operation": "PutObject",
            "cloudflare.r2.request.key": "folder/key",
            "cloudflare.r2.request.http_metadata.content_type": "text/plain",
            "cloudflare.r2.response.success": True,
            "cloudflare.r2.response.size": 9,
        }
        == put.attributes
    )
    assert kv_put.attributes["cloudflare.kv.query.expiration_ttl"] == 60
    assert kv_put.attributes["db.system.name"] == "cloudflare-kv"
    assert kv_get.attributes["cloudflare.kv.query.keys"] == ["name"]
    assert kv_get.attributes["cloudflare.kv.response.size"] == 5
    assert (send.kind, send.attributes["cloudflare.queue.name"]) == (PRODUCER, "jobs")
    assert (subrequest.kind, subrequest.attributes["url.query"]) == (CLIENT_KIND, "q=1")
    assert subrequest.attributes["http.response.status_code"] == 200
    assert (called.service, called.parent) == ("second", subrequest.id)
    (method,) = receiver.named("rpc_handler")
    assert (method.service, method.parent) == ("second", rpc.id)
    assert rpc.attributes["cloudflare.jsrpc.method"] == "add"
    (batch,) = receiver.named("queue_handler")
    assert (batch.parent, batch.kind) == (send.id, CONSUMER)
    assert batch.attributes["cloudflare.queue.batch_size"] == 1
    assert {each.attributes["faas.invocation_id"] for each in own} == {
        root.attributes["faas.invocation_id"]
    }
    assert seen[0]["traceparent"] == f"00-{TRACE}-{outside.id}-01"
    assert seen[0]["tracestate"] == "vendor=1"
    bodies = [(each.service, each.severity, each.body) for each in receiver.logs]
    assert ("first", "LOG", "path a {'b': 1}") in bodies
    assert ("first", "LOG", "got 1") in bodies


def test_failures_are_errors_of_spans(tmp_path, monkeypatch):
    """A refused call and the exception that it causes; the log record has its stack."""
    project = write_project(tmp_path)
    with exporting(project, tmp_path / "state", monkeypatch) as (running, receiver):
        assert running.request("/fail", method="GET")[0] == 500
        assert running.stop() == 0
    root = next(each for each in receiver.named("fetch_handler", "first"))
    assert (root.failed, root.attributes["cloudflare.outcome"]) == (True, "exception")
    assert root.attributes["http.response.status_code"] == 500
    refused = receiver.named("r2_put")[-1]
    assert refused.failed
    assert refused.attributes["cloudflare.r2.response.success"] is False
    assert "(10020)" in refused.attributes["cloudflare.r2.error.message"]
    (log,) = [each for each in receiver.logs if "exception.type" in each.attributes]
    assert log.severity == "EXCEPTION"
    assert "Traceback" in log.attributes["exception.message"]


def test_keys_of_wrangler_files(tmp_path, monkeypatch):
    """A Worker without traces is passed through; shares, logs and query strings are heeded."""
    project = write_project(
        tmp_path,
        observability={
            "enabled": True,
            "traces": {"enabled": False},
            "logs": {"enabled": True, "invocation_logs": False},
            "redact_query_string": True,
        },
        second={
            "observability": {
                "enabled": True,
                "traces": {"head_sampling_rate": 0},
                "logs": {"head_sampling_rate": 0},
            }
        },
    )
    with exporting(project, tmp_path / "state", monkeypatch) as (running, receiver):
        assert running.request("/a", method="GET", headers=TRACEPARENT)[0] == 201
        assert running.request("/b", method="GET")[0] == 201
        receiver.wait_until(lambda: sum("got" in each.body for each in receiver.logs) == 2)
        assert running.stop() == 0
    assert not [each for each in receiver.spans if each.service == "first"]
    assert not [each for each in receiver.spans if each.service == "second"]
    assert {each.service for each in receiver.logs} == {"first"}
    assert {each.trace for each in receiver.logs} == {""}
    assert {each.body for each in receiver.logs} == {"path a {'b': 1}", "got 1"}


def test_a_share_of_the_traces(tmp_path, monkeypatch):
    """``head_sampling_rate`` decides by trace, a client's own decision goes before it."""
    settings = {"observability": {"traces": {"enabled": True, "head_sampling_rate": 0.5}}}
    write_worker(tmp_path, "second", SECOND, **settings)
    (tmp_path / "edgesim.toml").write_text('workers = ["second"]\nisolation = "warm"\n')
    with exporting(tmp_path, tmp_path / "state", monkeypatch) as (running, receiver):
        for _ in range(100):
            running.request(method="GET")
        for flags in ("00", "01"):
            headers = {"traceparent": f"00-{TRACE[::-1]}-{CLIENT}-{flags}"}
            running.request(f"/{flags}", method="GET", headers=headers)
        assert running.stop() == 0
    paths = [each.attributes["url.path"] for each in receiver.named("fetch_handler")]
    assert 20 <= paths.count("/") <= 80  # five standard deviations and more
    assert "/01" in paths
    assert "/00" not in paths
    console = [each for each in receiver.logs if each.body.startswith("GET")]
    assert len(console) == 102


def test_a_message_keeps_its_context_over_a_restart(tmp_path, monkeypatch):
    """The context is stored with the message: a later run continues the trace."""
    project = write_project(tmp_path)
    wrangler = tmp_path / "first" / "wrangler.json"
    settings = json.loads(wrangler.read_text())
    settings["queues"]["producers"][0]["delivery_delay"] = 3
    wrangler.write_text(json.dumps(settings))
    with exporting(project, tmp_path / "state", monkeypatch) as (running, receiver):
        assert running.request(method="GET", headers=TRACEPARENT)[0] == 201
        assert running.stop() == 0
        (send,) = receiver.named("queue_send")
        with dev(project, tmp_path / "state", "--no-reload") as again:
            (batch,) = receiver.wait_for("queue_handler")
            assert again.stop() == 0
    assert (batch.trace, batch.parent) == (TRACE, send.id)


def test_nothing_depends_on_the_receiver(tmp_path, monkeypatch):
    """A receiver that is down: one warning, requests as ever, all losses counted; then it is up."""
    write_worker(tmp_path, "second", SECOND)
    (tmp_path / "edgesim.toml").write_text('workers = ["second"]\nisolation = "warm"\n')
    with receiving() as gone:
        url = gone.url
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "20")
    with dev(tmp_path, tmp_path / "state", "--no-reload") as running:
        deadline = time.monotonic() + SECONDS
        while not (counts := running.stats()["telemetry"])["dropped"]:
            assert time.monotonic() < deadline, counts
            for _ in range(50):
                assert running.request(method="GET") == (200, b"hello")
        for signal in ('"traces"', '"logs"'):
            running.wait_log("telemetry cannot be exported, will try again", url, signal)
        assert counts["spans"] == counts["logs"] == 0
        assert counts["pending"] <= 40
        metrics = running.request("/cdn-cgi/edgesim/metrics", method="GET")[1].decode()
        assert "edgesim_telemetry_dropped_total " in metrics
        with receiving(int(url.rpartition(":")[2])) as receiver:
            running.request("/back", method="GET")
            running.wait_log("telemetry is exported again", '"traces"')
            receiver.wait_until(
                lambda: "/back" in {each.attributes["url.path"] for each in receiver.spans}
            )
            counts = running.stats()["telemetry"]
        warnings = [line for line in running.log if "telemetry cannot be exported" in line]
        assert len(warnings) == 2  # one for traces, one for logs
        assert running.stop() == 0


def test_a_receiver_that_hangs_does_not_hold_the_end_up(tmp_path, monkeypatch):
    """The end of edgesim waits for the last export for a limited time, and says what is lost."""
    write_worker(tmp_path, "second", SECOND)
    (tmp_path / "edgesim.toml").write_text('workers = ["second"]\nisolation = "warm"\n')
    with exporting(tmp_path, tmp_path / "state", monkeypatch) as (running, receiver):
        receiver.held.clear()
        running.request(method="GET")
        running.wait_log('"fetch"')
        begun = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - begun < 30
        receiver.held.set()


def test_the_key_of_edgesim_toml(tmp_path):
    """``[observability] otlp`` names the receiver; ``doctor`` tells whether it can be reached."""
    write_worker(tmp_path, "second", SECOND)
    with receiving() as receiver:
        toml = f'workers = ["second"]\n[observability]\notlp = "{receiver.url}"\n'
        (tmp_path / "edgesim.toml").write_text(toml)
        with dev(tmp_path, tmp_path / "state", "--no-reload") as running:
            running.request(method="GET")
            receiver.wait_for("fetch_handler", "second")
            assert running.stop() == 0
        found = edgesim("doctor", tmp_path, "--state", tmp_path / "state")
        assert f"{receiver.url}/v1/traces accepts connections" in found.stdout
    found = edgesim("doctor", tmp_path, "--state", tmp_path / "state")
    assert f"{receiver.url}/v1/traces cannot be reached" in found.stdout
    (tmp_path / "edgesim.toml").write_text(toml.replace("http://", "udp://"))
    refused = edgesim("check", tmp_path)
    assert refused.returncode == 2
    assert "observability.otlp" in refused.stderr


def test_nothing_is_imported_while_it_is_off(tmp_path):
    """Without a receiver the OpenTelemetry packages are not even loaded, and no context is kept."""
    write_worker(tmp_path, "second", SECOND)
    code = """
import sys
from pathlib import Path
import anyio
from edgesim.clock import Clock
from edgesim.config import Environment, load_project
from edgesim.dev.server import Server, open_exporter
from edgesim.observation.recent import RecentTraces

async def main():
    project = load_project(Path(sys.argv[1]), environment=Environment())
    async with open_exporter(project, Clock(), RecentTraces()) as exporter:
        assert exporter is None

anyio.run(main)
print([name for name in sys.modules if name.startswith(("opentelemetry", "requests", "google"))])
"""
    (tmp_path / "edgesim.toml").write_text('workers = ["second"]\n')
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "[]"
