"""`edgesim invocations`: events sent again to the code as saved now, and fixtures of them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import Dev, dev, edgesim
from tests.simulated import write_worker

MAIN = """
import helpers.words


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        name = await request.text()
        if "/order" in request.url:
            await self.env.JOBS.send({"name": name})
        if "/inner" in request.url:
            return await self.env.OTHER.fetch("http://other/inner", method="POST", body=name)
        print("asked", name)
        return Response(helpers.words.GREETING + name, status=201)

    async def queue(self, batch, env, ctx):
        for message in batch.messages:
            if message.body["name"] == "bad":
                message.retry()
"""
OTHER = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("other " + await request.text())
"""


class Invoked:
    """A running project with commands on it."""

    def __init__(self, running: Dev, project: Path, state: Path) -> None:
        self.running = running
        self.project = project
        self.state = state

    def command(self, *words: object, code: int = 0) -> str:
        done = edgesim("invocations", *words, "--project", self.project, "--state", self.state)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def ask(self, path: str, body: bytes | None = None) -> Any:
        method = "GET" if body is None else "POST"
        status, reply = self.running.request(f"/cdn-cgi/edgesim{path}", body, method=method)
        assert status == 200, reply
        return json.loads(reply)

    def last(self, text: str) -> str:
        """The id of the newest invocation with a text."""
        return str(self.ask(f"/invocations?text={text}&limit=1")["invocations"][0]["id"])

    def again(self, identifier: str, message: str = "") -> Any:
        return self.ask(f"/invocation/again?id={identifier}&message={message}", b"")

    def save(self, old: str, new: str, file: str = "entry.py") -> None:
        path = self.project / "main" / file
        path.write_text(path.read_text().replace(old, new))


@pytest.fixture(scope="module")
def invoked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Invoked]:
    """A project that does not reload by itself."""
    folder = tmp_path_factory.mktemp("again")
    project = folder / "project"
    consumer = {"queue": "jobs", "max_batch_timeout": 0, "max_batch_size": 2, "max_retries": 0}
    write_worker(
        project,
        "main",
        MAIN,
        queues={"producers": [{"binding": "JOBS", "queue": "jobs"}], "consumers": [consumer]},
        services=[{"binding": "OTHER", "service": "other"}],
    )
    (project / "main" / "helpers").mkdir()
    (project / "main" / "helpers" / "__init__.py").touch()
    (project / "main" / "helpers" / "words.py").write_text('GREETING = "hello "\n')
    write_worker(project, "other", OTHER)
    (project / "edgesim.toml").write_text('workers = ["main", "other"]\n')
    with dev(project, folder / "state", "--no-reload", "--isolation", "inline") as running:
        yield Invoked(running, project, folder / "state")


def test_a_request_is_compared_with_the_saved_code(invoked):
    """The same code has the same outcome; a saved change is loaded, and its effects are shown."""
    assert invoked.running.request("/a?x=1", b"ann")[1] == b"hello ann"
    first = invoked.last("/a?x=1")
    same = invoked.again(first)
    assert (same["same"], same["differences"], same["reloaded"]) == (True, [], [])
    assert (same["after"]["status"], same["after"]["body"]) == (201, "hello ann")
    assert invoked.last("/a?x=1") == same["again"] != first
    invoked.save("hello", "good day", "helpers/words.py")
    invoked.save('print("asked"', 'print("was asked"')
    changed = invoked.again(first)
    assert (changed["same"], changed["reloaded"]) == (False, ["main"])
    assert {each["what"]: (each["before"], each["after"]) for each in changed["differences"]} == {
        "body": ("hello ann", "good day ann"),
        "console": (["log: asked ann"], ["log: was asked ann"]),
    }
    said = invoked.command("again", first, code=1)
    assert said.splitlines()[0].endswith(": ok 201, differs")
    assert "- body: hello ann" in said
    assert "+ body: good day ann" in said
    assert invoked.command("again", changed["again"]).endswith(": ok 201, same\n")


def test_code_that_does_not_load_is_named(invoked):
    """A saved version that does not load is refused, and the loaded one goes on."""
    assert invoked.running.request("/b", b"bob")[0] == 201
    found = invoked.last("/b")
    source = (invoked.project / "main" / "entry.py").read_text()
    invoked.save("class Default", "class Default(:\nclass Other")
    try:
        status, reply = invoked.running.request(
            f"/cdn-cgi/edgesim/invocation/again?id={found}", b"", method="POST"
        )
        assert (status, b"SyntaxError" in reply) == (400, True), reply
        assert invoked.running.request("/b", b"bob")[0] == 201
    finally:
        (invoked.project / "main" / "entry.py").write_text(source)


def test_a_batch_and_one_message_are_sent_again(invoked):
    """Decisions are compared; the queue itself is left as it is."""
    body = {"operation": "queue.send", "arguments": {"queue": "jobs", "body": {"name": "bad"}}}
    invoked.ask("/operations", json.dumps(body).encode())
    invoked.running.drain()
    counters = invoked.running.stats()["queues"]["jobs"]
    batch = invoked.ask("/invocations?worker=main&limit=1")["invocations"][0]
    assert batch["event"]["queue"] == "jobs"
    [message] = invoked.ask(f"/invocation?id={batch['id']}")["messages"]
    assert (message["body"], message["attempts"]) == ({"name": "bad"}, 1)
    assert invoked.again(batch["id"])["same"]
    invoked.save("message.retry()", "message.ack()")
    changed = invoked.again(batch["id"], message["id"])
    assert {each["what"]: (each["before"], each["after"]) for each in changed["differences"]} == {
        "acked": ([], [message["id"]]),
        "retried": ([message["id"]], []),
    }
    assert invoked.running.stats()["queues"]["jobs"] == counters
    wrong = invoked.command("again", batch["id"], "--message", "none", code=2)
    assert wrong == "edgesim: message: the batch has no message 'none'\n"


def test_a_fixture_of_the_listed_requests_is_replayed(invoked, tmp_path):
    """The listed requests from outside are a fixture, without secrets; the rest is counted."""
    before = invoked.last("")
    headers = {"authorization": "Bearer s3cret", "x-mark": "7"}
    invoked.running.request("/order?token=s3cret", b"\xff\x00", headers=headers)
    invoked.running.request("/inner", b'{"password": "s3cret", "n": 1}')
    invoked.running.request("/", b"told", headers={"host": "other.localhost"})
    invoked.running.drain()
    listed = invoked.ask("/invocations?limit=50")["invocations"]
    ids = [each["id"] for each in listed if int(each["id"][9:]) > int(before[9:])]
    status, lines = invoked.running.request(
        "/cdn-cgi/edgesim/fixture", json.dumps({"ids": [*ids, *ids]}).encode()
    )
    assert (status, b"s3cret" in lines) == (200, False)
    first, second, third = map(json.loads, lines.splitlines())
    assert first["request"]["headers"]["x-mark"] == "7"
    assert first["start"].endswith("Z")
    assert second["request"]["json"] == {"password": "REDACTED", "n": 1}
    assert (third["worker"], third["request"]["body"]) == ("other", "told")
    file = tmp_path / "events.ndjson"
    said = invoked.command("fixture", "--limit", len(ids), "--output", file)
    assert said.splitlines()[0] == f"3 requests in {file}"
    assert "1 left out: called by another Worker" in said
    assert "1 left out: no request" in said
    assert file.read_bytes() == lines
    report = json.loads(
        edgesim("replay", file, "--project", invoked.project, "--report", "json").stdout
    )
    assert report["responses"] == {"200": 2, "201": 1}
    assert report["stats"]["queues"]["jobs"]["delivered"] == 1
    assert "is there already" in invoked.command("fixture", "--output", file, code=2)


def test_what_is_not_there_is_one_line(invoked, tmp_path):
    """Unknown ids, and a project that does not run, are errors of one line."""
    said = invoked.command("again", "00000000-1", code=2)
    assert said.startswith("edgesim: no invocation '00000000-1' is kept; the last ")
    assert "no invocation" in invoked.command("show", "stats", code=2)
    done = edgesim("invocations", "ls", "--state", tmp_path)
    assert (done.returncode, "no project runs on" in done.stderr) == (2, True)


def test_invocations_are_listed(invoked):
    """A list has ids, and is filtered by Worker, outcome and text."""
    invoked.running.request("/listed", b"x")
    row = invoked.command("ls", "main", "--status", "ok", "--search", "/listed").rstrip("\n")
    identifier, _, worker, outcome, event = row.split("\t")
    assert (worker, outcome) == ("main", "ok")
    assert event.endswith("/listed 201")
    assert json.loads(invoked.command("show", identifier))["request"]["path"] == "/listed"
    assert invoked.command("ls", "--status", "failed", "--search", "/listed") == ""
