"""`POST drain` returns 200 if nothing is left anywhere, else 504 with the rest."""

import json
from contextlib import contextmanager
from urllib.parse import quote

import pytest

from tests.processes import dev, edgesim
from tests.simulated import write_worker

SOURCE = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        body = await request.json()
        if "record" in body:
            await self.env.EVENTS.send([body])
        if "queue" in body:
            await getattr(self.env, body["queue"]).send(body)
        return Response("ok")
    async def queue(self, batch, env=None, ctx=None):
        for message in batch.messages:
            if "retry" in message.body:
                message.retry(delaySeconds=message.body["retry"])
            if "sleep" in message.body:
                await asyncio.sleep(message.body["sleep"])
    async def tail(self, events, env=None, ctx=None):
        pass
"""
ACCOUNT = """
workers = ["main"]
[pipelines.events]
bucket = "events"
[queues.pulled.pull]
[r2.events]
notifications = []
[backends]
r2 = "memory:"
queues = "memory:"
clickhouse = "chdb:none"
"""
QUEUES = ["jobs", "nobodys", "pulled", "dead"]


@contextmanager
def running(folder):
    """Run the project: a consumed queue with a dead-letter queue, and one of each other kind."""
    write_worker(
        folder,
        "main",
        SOURCE,
        pipelines=[{"binding": "EVENTS", "stream": "events"}],
        queues={
            "producers": [{"binding": name, "queue": name} for name in QUEUES],
            "consumers": [
                {
                    "queue": "jobs",
                    "max_batch_timeout": 0,
                    "max_retries": 1,
                    "dead_letter_queue": "dead",
                }
            ],
        },
    )
    (folder / "edgesim.toml").write_text(ACCOUNT)
    with dev(folder, folder / "state", "--no-reload", "--isolation", "inline") as server:
        yield server


def drained(server, timeout):
    """Drain and return the status, the remaining work, and the dead letters."""
    status, body = server.request(f"/cdn-cgi/edgesim/drain?timeout={timeout}", b"")
    answer = json.loads(body)
    assert answer["drained"] is (status == 200)
    assert answer["stats"]["queues"]
    return status, answer["left"], answer["dead_letters"]


def test_what_is_left_is_listed(tmp_path):
    """Each kind of message that cannot finish in time is listed, and the drain waits for none."""
    with running(tmp_path) as server:
        assert server.post({"record": 1, "queue": "jobs"}) == 200
        assert drained(server, 60) == (200, {}, {})
        server.post({"queue": "dead"})
        assert drained(server, 60) == (200, {}, {"dead": 1})
        server.post({"queue": "jobs", "retry": 3_000})
        server.post({"queue": "nobodys"})
        status, left, dead = drained(server, 1_000)
        assert (status, dead, left.keys()) == (504, {"dead": 1}, {"queues"})
        waiting = left["queues"]["jobs"]
        assert (waiting["messages"], waiting["consumer"]) == (1, "main")
        assert waiting["next_visible_at"].endswith("Z")
        nobodys = left["queues"]["nobodys"]
        assert (nobodys["messages"], nobodys["consumer"]) == (1, None)


def test_a_pull_queue_is_waited_for_and_counts(tmp_path):
    """A client may still pull: the drain uses its whole timeout, then lists the queue."""
    with running(tmp_path) as server:
        server.post({"queue": "pulled"})
        status, left, _ = drained(server, 0.2)
        assert (status, left["queues"]["pulled"]["consumer"]) == (504, "a pull consumer")
        assert edgesim(
            *("queue", "purge", "pulled", "--project", tmp_path, "--state", tmp_path / "state")
        ).stdout == ("purged 1\n")
        assert drained(server, 60) == (200, {}, {})


def test_a_batch_under_way_is_left(tmp_path):
    """A handler that takes longer than the drain is listed as in flight."""
    with running(tmp_path) as server:
        server.post({"queue": "jobs", "sleep": 25})
        status, left, _ = drained(server, 1)
        assert status == 504
        assert left["queues"]["jobs"]["in_flight"] == 1


def test_a_retry_within_the_timeout_is_waited_for(tmp_path):
    """A retry that is due before the timeout is delivered; after the last it is a dead letter."""
    with running(tmp_path) as server:
        server.post({"queue": "jobs", "retry": 1})
        assert drained(server, 60) == (200, {}, {"dead": 1})


@pytest.mark.parametrize(
    "timeout", ["nan", "-1", "-0.001", "inf", "1e300", "soon", "", "1;2", "-nan", "86401"]
)
def test_timeouts_that_are_none(drain_server, timeout):
    """Any timeout except 0 to 86,400 seconds is refused in one line."""
    status, body = drain_server.request(f"/cdn-cgi/edgesim/drain?timeout={quote(timeout)}", b"")
    assert status == 400
    problem = f"timeout must be a number of seconds from 0 to 86400, not {timeout!r}\n"
    assert body.decode() == problem


@pytest.fixture(scope="module")
def drain_server(tmp_path_factory):
    """A running project."""
    with running(tmp_path_factory.mktemp("drain")) as server:
        yield server
