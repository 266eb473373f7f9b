"""Traces and logs of JavaScript Workers, as a real OTLP receiver gets them."""

import json
from typing import Any

import pytest

from tests.javascript_world import programs, write_javascript
from tests.otlp_receiver import receiving
from tests.processes import ROOT, dev

EVENT = {"event": "kill", "player_id": "p1", "ts": 1767225600000, "props": {"damage": 7}}
TRACE, CLIENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{CLIENT}-01"}
MIXED = """
export default {
  async fetch(request, env) {
    await env.BUCKET.put("key", "text");
    await env.BUCKET.get("key");
    const answer = await env.SECOND.fetch("http://second/there");
    console.warn("answered", answer.status);
    throw new RangeError("no luck");
  },
};
"""
SECOND = """
export default { async fetch() { return new Response("hello"); } };
"""


@pytest.fixture
def exporting(monkeypatch):
    """A receiver that commands export to."""
    found = programs()
    monkeypatch.setenv("EDGESIM_WORKERD", str(found.workerd))
    monkeypatch.setenv("EDGESIM_ESBUILD", str(found.esbuild))
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        yield receiver


@pytest.mark.parametrize("isolation", ["warm", "process"])
def test_one_event_is_one_trace(tmp_path, exporting, isolation):
    """The pipeline in TypeScript: from the client's span to the insert into ClickHouse."""
    project = ROOT / "examples" / "javascript"
    arguments = ("--no-reload", "--isolation", isolation)
    with dev(project, tmp_path / "state", *arguments) as running:
        assert running.request(body=json.dumps(EVENT).encode(), headers=TRACEPARENT)[0] == 200
        running.drain()
        assert running.stop() == 0
    names = [each.name for each in exporting.spans if each.trace == TRACE]
    assert len(names) == len(exporting.spans)
    assert {
        *("fetch_handler", "tail_handler", "pipeline_send", "pipeline_window"),
        *("r2_event_notification", "queue_handler", "r2_get", "fetch", "clickhouse_insert"),
    } == set(names)
    (insert,) = exporting.named("clickhouse_insert")
    (subrequest,) = [each for each in exporting.named("fetch") if each.id == insert.parent]
    (batch,) = [each for each in exporting.named("queue_handler") if each.id == subrequest.parent]
    assert batch.service == "insert"


@pytest.mark.parametrize("isolation", ["warm", "process"])
def test_calls_logs_and_exceptions(tmp_path, exporting, isolation):
    """Spans of bindings and of the called Worker; the exception is the span's error."""
    bindings: dict[str, Any] = {
        "r2_buckets": [{"binding": "BUCKET", "bucket_name": "things"}],
        "services": [{"binding": "SECOND", "service": "second"}],
    }
    write_javascript(tmp_path, "first", MIXED, **bindings)
    write_javascript(tmp_path, "second", SECOND)
    (tmp_path / "edgesim.toml").write_text('workers = ["first", "second"]\n')
    arguments = ("--no-reload", "--isolation", isolation)
    with dev(tmp_path, tmp_path / "state", *arguments) as running:
        assert running.request(method="GET", headers=TRACEPARENT)[0] == 500
        assert running.stop() == 0
    assert {each.trace for each in exporting.spans} == {TRACE}
    (root,) = exporting.named("fetch_handler", "first")
    assert (root.parent, root.failed, root.problem) == (CLIENT, True, "RangeError: no luck")
    own = sorted(
        (each for each in exporting.spans if each.parent == root.id), key=lambda each: each.start
    )
    assert [each.name for each in own] == ["r2_put", "r2_get", "fetch"]
    assert own[1].attributes["cloudflare.r2.response.size"] == 4
    (called,) = exporting.named("fetch_handler", "second")
    assert called.parent == own[2].id
    logs = {each.severity: each for each in exporting.logs if each.service == "first"}
    assert logs["WARN"].body == "answered 200"
    assert (logs["WARN"].trace, logs["WARN"].span) == (TRACE, root.id)
    assert logs["EXCEPTION"].attributes["exception.type"] == "RangeError"
