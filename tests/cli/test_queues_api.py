"""The queues API over HTTP on a running `edgesim dev`: authorisation, pull, ack, push."""

import base64
import http.client
import json
import os
import signal
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from edgesim.dev.queues_api import queue_id
from tests.processes import dev, edgesim

PROJECT = """
workers = ["w"]
isolation = "inline"
[backends]
r2 = "memory:"
[queues.jobs.pull]
max_retries = 1
dead_letter_queue = "jobs-dlq"
[queues.older.pull]
visibility_timeout_ms = 0
"""
WRANGLER = {
    "name": "w",
    "main": "entry.py",
    "queues": {
        "producers": [{"binding": "JOBS", "queue": "jobs"}, {"binding": "Q", "queue": "plain"}],
    },
}
WORKER = """
from datetime import datetime
from workers import Response, WorkerEntrypoint

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        if request.url.endswith("/send"):
            value = {"at": datetime(2026, 1, 2), "raw": b"ab"}
            await self.env.JOBS.sendBatch([{"body": {"n": 1}},
                                           {"body": b"\\xff", "contentType": "bytes"},
                                           {"body": "plain", "contentType": "text"},
                                           {"body": value, "contentType": "v8"}])
        return Response("the Worker")
"""
TOKEN = {"authorization": "Bearer anything"}


def make_project(folder: Path) -> Path:
    """Write a project with one producer and queues to pull from."""
    (folder / "w").mkdir(parents=True)
    (folder / "edgesim.toml").write_text(PROJECT)
    (folder / "w" / "wrangler.jsonc").write_text(json.dumps(WRANGLER))
    (folder / "w" / "entry.py").write_text(WORKER)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("api") / "project")


@pytest.fixture(scope="module")
def server(project):
    with dev(project, project / "state", "--no-reload") as running:
        yield running


def call(server, path, body=None, *, method="POST", **headers):
    """Send a request; return status and decoded response; underscores in header names are -."""
    url = urlsplit(server.url)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=30)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    data = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
    connection.request(method, f"/client/v4/accounts/acct/queues{path}", data, TOKEN | names)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    try:
        return answer.status, json.loads(content)
    except ValueError:
        return answer.status, content


def ok(server, path, body=None):
    """Return the result of a call that must succeed, from the platform's envelope."""
    status, answer = call(server, path, body)
    assert (status, answer["success"], answer["errors"]) == (200, True, []), answer
    return answer["result"]


def refused(server, path, body=None, **headers):
    """Return status, code and text of a call that must fail."""
    status, answer = call(server, path, body, **headers)
    assert (answer["success"], answer["result"]) == (False, None)
    (error,) = answer["errors"]
    return status, error["code"], error["message"]


@pytest.fixture
def empty(server, project):
    """The running project, with its queues emptied."""
    for name in ("jobs", "jobs-dlq", "older", "plain"):
        server.request(
            "/cdn-cgi/edgesim/operations",
            json.dumps({"operation": "queue.purge", "arguments": {"queue": name}}).encode(),
        )
    return server


def test_what_a_worker_sent_is_pulled_and_acked(empty):
    """json, bytes and v8 come as base64, text plain; acked messages are gone, retried ones not."""
    assert empty.request("/send", method="GET")[0] == 200
    result = ok(empty, "/jobs/messages/pull", {"batch_size": 10})
    messages = result["messages"]
    kinds = [each["metadata"]["CF-Content-Type"] for each in messages]
    assert kinds == ["json", "bytes", "text", "v8"]
    assert json.loads(base64.b64decode(messages[0]["body"])) == {"n": 1}
    assert base64.b64decode(messages[1]["body"]) == b"\xff"
    assert messages[2]["body"] == "plain"
    assert {each["attempts"] for each in messages} == {1}
    assert result["metadata"]["metrics"]["backlog_count"] == 4
    acks = [{"lease_id": each["lease_id"]} for each in messages[:3]]
    retries = [{"lease_id": messages[3]["lease_id"], "delay_seconds": 0}, {"lease_id": "strange"}]
    settled = ok(empty, "/jobs/messages/ack", {"acks": acks, "retries": retries})
    assert settled == {"ackCount": 3, "retryCount": 1, "warnings": {"strange": "not a lease id"}}
    (again,) = ok(empty, f"/{queue_id('jobs')}/messages/pull")["messages"]
    assert (again["id"], again["attempts"]) == (messages[3]["id"], 2)
    ok(empty, "/jobs/messages/ack", {"retries": [{"lease_id": again["lease_id"]}]})
    assert ok(empty, "/jobs/messages/pull")["messages"] == []
    counts = empty.stats()["queues"]
    expected = {"backlog": 0, "delivered": 3, "retried": 1, "dead": 1}
    assert counts["jobs"].items() >= expected.items()
    assert counts["jobs-dlq"]["backlog"] == 1


def test_a_paused_queue_is_not_pulled(empty):
    """A pull of a paused queue is refused with the platform's text; a push is stored."""

    def operate(name):
        body = {"operation": f"queue.{name}", "arguments": {"queue": "jobs"}}
        assert empty.request("/cdn-cgi/edgesim/operations", json.dumps(body).encode())[0] == 200

    operate("pause")
    try:
        ok(empty, "/jobs/messages", {"body": {"n": 1}})
        status, _, text = refused(empty, "/jobs/messages/pull")
        assert (status, text) == (409, "queue_delivery_paused")
    finally:
        operate("resume")
    assert len(ok(empty, "/jobs/messages/pull")["messages"]) == 1


def test_peek_shows_what_v8_holds(empty, project):
    """An operator sees bytes as base64 and times as ISO text, in a v8 body too."""
    empty.request("/send", method="GET")
    peeked = edgesim("queue", "peek", "jobs", "--project", project, "--state", project / "state")
    assert peeked.returncode == 0, peeked.stderr
    bodies = [line for line in peeked.stdout.splitlines() if "v8" in line]
    assert len(bodies) == 1
    assert '"raw": "YWI="' in peeked.stdout
    assert '"at": "2026-01-02T00:00:00Z"' in peeked.stdout


def test_messages_are_pushed_over_http(empty):
    """One message, or a batch with its own delays; the response has the backlog."""
    metrics = ok(empty, "/jobs/messages", {"body": {"a": [1]}})["metadata"]["metrics"]
    assert (metrics["backlog_count"], metrics["backlog_bytes"]) == (1, 9)
    batch = {
        "delay_seconds": 3600,
        "messages": [
            {"body": "now", "content_type": "text", "delay_seconds": 0},
            {"body": "later", "content_type": "text"},
        ],
    }
    assert ok(empty, "/jobs/messages/batch", batch)["metadata"]["metrics"]["backlog_count"] == 3
    pulled = ok(empty, "/jobs/messages/pull")["messages"]
    assert [each["metadata"]["CF-Content-Type"] for each in pulled] == ["json", "text"]
    assert (base64.b64decode(pulled[0]["body"]), pulled[1]["body"]) == (b'{"a":[1]}', "now")


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/jobs/messages", {"body": "x" * 128_000}, (413, 10204, "exceeds limit of 128000")),
        ("/jobs/messages/batch", {"messages": [{"body": 1}] * 101}, (413, 10206, "of 100")),
        ("/jobs/messages", {"body": 1, "delay_seconds": 86_401}, (400, 10203, "message delay")),
        ("/jobs/messages", {"body": 1, "content_type": "text"}, (400, 10207, "type string")),
        ("/jobs/messages", {"body": "x", "content_type": "v8"}, (400, 10207, "json or text")),
        ("/jobs/messages", {}, (400, 10207, "missing required field `body`")),
        ("/jobs/messages", b"{", (400, 10207, "bad JSON")),
        ("/jobs/messages", b'{"body": ' + b"[" * 100_000, (400, 10207, "recursion")),
        ("/jobs/messages", b'{"body": "\xff"}', (400, 10207, "bad JSON")),
        ("/jobs/messages", b" " * 2_000_001, (413, 10205, "the body is over")),
        ("/jobs/messages/pull", {"batch_size": 101}, (400, 10207, "from 1 to 100")),
        ("/jobs/messages/pull", {"visibility_timeout_ms": 43_200_001}, (400, 10207, "43200000")),
        ("/jobs/messages/ack", {"acks": ["x"]}, (400, 10207, "acks[0]")),
        ("/nothing/messages/pull", {}, (404, 10104, "there is no queue 'nothing'")),
        ("/plain/messages/pull", {}, (400, 15000, "'plain' has no pull consumer")),
    ],
)
def test_wrong_calls_say_what_is_wrong(empty, path, body, expected):
    """Each mistake has its own status, platform code and text, and changes nothing."""
    status, code, text = expected
    found = refused(empty, path, body)
    assert found[:2] == (status, code)
    assert text in found[2]
    assert ok(empty, "/jobs/messages/pull")["messages"] == []


def test_a_pull_consumer_has_a_timeout_of_its_own(empty):
    """With a visibility timeout of 0 the message can be pulled again at once."""
    ok(empty, "/older/messages", {"body": 1})
    for attempts in (1, 2):
        (message,) = ok(empty, "/older/messages/pull")["messages"]
        assert message["attempts"] == attempts


def test_queues_are_listed_with_their_ids(server):
    """A client finds the id of a queue by its name."""
    status, answer = call(server, "", method="GET")
    assert status == 200
    assert {"queue_id": queue_id("jobs"), "queue_name": "jobs"} in answer["result"]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"authorization": ""}, (401, 10000)),
        ({"authorization": "Basic abc"}, (401, 10000)),
        ({"origin": "http://evil.example"}, (403, 10000)),
        ({"host": "evil.example"}, (403, 10000)),
        ({"host": "rebound.localhost.evil.example:80"}, (403, 10000)),
    ],
)
def test_strangers_are_refused(server, headers, expected):
    """No token, a web page of another origin, or a foreign host name: refused, on loopback too."""
    assert refused(server, "/jobs/messages/pull", {}, **headers)[:2] == expected


def test_the_configured_token_is_the_only_one(project, tmp_path, monkeypatch):
    """With EDGESIM_API_TOKEN set, every other token is refused."""
    monkeypatch.setenv("EDGESIM_API_TOKEN", "s3cret")
    with dev(project, tmp_path / "state", "--no-reload") as running:
        assert refused(running, "/jobs/messages/pull")[:2] == (403, 10000)
        right = {"authorization": "Bearer s3cret"}
        assert call(running, "/jobs/messages/pull", **right)[0] == 200


def test_beyond_loopback_a_token_must_be_configured(project, tmp_path, monkeypatch):
    """A server on a public interface refuses all calls until EDGESIM_API_TOKEN is set."""
    monkeypatch.delenv("EDGESIM_API_TOKEN", raising=False)
    with dev(project, tmp_path / "state", "--no-reload", "--host", "0.0.0.0") as running:
        running.url = running.url.replace("0.0.0.0", "127.0.0.1")
        status, code, text = refused(running, "/jobs/messages/pull")
        assert (status, code) == (403, 10000)
        assert "EDGESIM_API_TOKEN" in text


def test_workers_keep_their_own_paths(server):
    """The API handles only its own paths, and never those of a Worker's own host name."""
    path = "/client/v4/accounts/acct/queues/jobs/messages/pull"
    for other, host in (("/client/v4/zones", None), (path, "w.localhost")):
        headers = {"host": host} if host else {}
        assert server.request(other, b"{}", headers=headers) == (200, b"the Worker")


def test_pulled_messages_survive_a_killed_server(project, tmp_path):
    """Messages that were pulled and not acked before a SIGKILL can be pulled again, once each."""
    with dev(project, tmp_path / "state", "--no-reload") as running:
        batch = {"messages": [{"body": n} for n in range(10)]}
        ok(running, "/jobs/messages/batch", batch)
        pulled = ok(running, "/jobs/messages/pull", {"batch_size": 6})["messages"]
        acks = [{"lease_id": each["lease_id"]} for each in pulled[:2]]
        assert ok(running, "/jobs/messages/ack", {"acks": acks})["ackCount"] == 2
        os.kill(running.process.pid, signal.SIGKILL)
        running.process.wait()
    with dev(project, tmp_path / "state", "--no-reload") as running:
        again = ok(running, "/jobs/messages/pull", {"batch_size": 100})["messages"]
        left = [(int(base64.b64decode(each["body"])), each["attempts"]) for each in again]
        assert sorted(left) == [(n, 2) for n in range(2, 6)] + [(n, 1) for n in range(6, 10)]


def test_queue_with_a_pull_consumer_has_no_push_consumer(tmp_path):
    """A push consumer beside a pull consumer is one clear line and exit code 2."""
    project = make_project(tmp_path / "project")
    both = WRANGLER | {"queues": {"consumers": [{"queue": "jobs"}]}}
    (project / "w" / "wrangler.jsonc").write_text(json.dumps(both))
    ended = edgesim("dev", project, "--port", "0")
    assert ended.returncode == 2
    assert "queues.consumers[0].queue: 'jobs' has a consumer already: [queues.jobs.pull]" in (
        ended.stderr
    )
