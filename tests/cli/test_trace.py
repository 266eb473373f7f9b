"""`edgesim trace`: where an event is, from its request to its row."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.processes import WORKERS, dev, edgesim
from tests.simulated import write_worker

Sightings = list[dict[str, Any]]
EVENT = {"event": "kill", "player_id": "player-7731", "ts": 1_767_225_600_000}
INLINE = ("--isolation", "inline")
"""No test here depends on the isolation level, and without zygotes a start takes half the time."""


def trace(text: str, state: Path, project: Path = WORKERS) -> Sightings:
    done = edgesim("trace", text, "--json", "--project", project, "--state", state)
    assert done.returncode in {0, 1}, done.stderr
    found: Sightings = json.loads(done.stdout)
    return found


def stages(found: Sightings) -> list[tuple[str, str]]:
    return [(each["stage"], each["place"].partition("/")[0]) for each in found]


def test_an_event_is_followed_to_its_row(tmp_path):
    """Before the window ends an event is in the pipeline's log, then in an object and a table."""
    with dev(WORKERS, tmp_path, "--no-reload", *INLINE) as running:
        running.post([EVENT | {"player_id": "someone-else"}, EVENT, EVENT | {"event": "die"}])
        running.wait_log("tail")
        found = trace("player-7731", tmp_path)
        expected = [("request", "receiver"), ("log", "receiver"), ("log", "receiver")]
        assert stages(found)[:3] == expected
        running.drain()
        found = trace("player-7731", tmp_path)
        later = [("object", "events")] * 2 + [("table", "events")] * 2
        assert stages(found) == expected + later
        assert [each["detail"]["line"] for each in found[3:5]] == [2, 3]
        assert found[5]["detail"]["player_id"] == "player-7731"
        assert [each["at"] for each in found] == sorted(each["at"] for each in found)
        url = f"/cdn-cgi/edgesim/trace?q={quote('player-7731')}"
        status, body = running.request(url, method="GET")
        assert (status, json.loads(body)) == (200, found)
        assert running.stop() == 0
    assert stages(trace("player-7731", tmp_path)) == later


def test_records_in_an_open_window_are_found(tmp_path):
    """A record whose window is open is found in the pipeline's log, also after a restart."""
    project = tmp_path / "project"
    source = """
    class Default(WorkerEntrypoint):
        async def fetch(self, request):
            await self.env.OUT.send([{"n": n, "name": f"record-{n}"} for n in range(50)])
            return Response("ok")
    """
    write_worker(project, "w", source, pipelines=[{"binding": "OUT", "stream": "p"}])
    (project / "edgesim.toml").write_text('workers = ["w"]\n[pipelines.p]\nbucket = "records"\n')
    state = tmp_path / "state"
    with dev(project, state, "--no-reload", *INLINE) as running:
        assert running.request("/")[0] == 200
        (found,) = trace("record-31", state, project)
        assert stages([found]) == [("pipeline", "p")]
        assert (found["detail"]["record"], found["detail"]["of"]) == (32, 50)
        assert running.stop() == 0
    (found,) = trace("record-31", state, project)
    assert found["detail"]["record"] == 32


def test_texts_that_json_escapes_are_found(tmp_path):
    """A text is found as it is, although records hold it as a JSON string."""
    texts = ['a "quoted" näme', "back\\slash", "<b>'html'</b>"]
    with dev(WORKERS, tmp_path, "--no-reload", *INLINE) as running:
        for text in texts:
            running.post(EVENT | {"player_id": text})
        running.drain()
        for text in texts:
            assert {"log", "object", "table"} <= {each["stage"] for each in trace(text, tmp_path)}


def test_messages_are_found_by_their_object(tmp_path):
    """A queue's message is found by its body, and by the object that it is about."""
    project = tmp_path / "project"
    write_worker(
        project,
        "w",
        """
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                await self.env.BUCKET.put("a/needle.txt", "one\\ntwo needle\\n")
                await self.env.OUT.send({"about": "needle"})
                return Response("ok")
        """,
        r2_buckets=[{"binding": "BUCKET", "bucket_name": "files"}],
        queues={"producers": [{"binding": "OUT", "queue": "jobs"}]},
    )
    notification = '[[r2.files.notifications]]\nqueue = "notes"\n[queues.notes]\n'
    (project / "edgesim.toml").write_text(f'workers = ["w"]\n{notification}')
    with dev(project, tmp_path / "state", "--no-reload", *INLINE) as running:
        assert running.request("/")[0] == 200
        running.wait_log("fetch")
        found = trace("needle", tmp_path / "state", project)
        objects, queues = [("object", "files")] * 2, [("queue", "jobs"), ("queue", "notes")]
        assert stages(found) == objects + queues
        assert found[1]["detail"] == {"line": 2, "text": "two needle"}
        assert found[3]["detail"]["about"] == "a/needle.txt"


def test_an_unknown_event_is_said(tmp_path):
    """A text that is nowhere is exit code 1; an empty one is a usage error."""
    with dev(WORKERS, tmp_path, "--no-reload", *INLINE):
        done = edgesim("trace", "nobody", "--project", WORKERS, "--state", tmp_path)
        assert (done.returncode, done.stdout) == (1, "'nobody' is nowhere in this project\n")
        done = edgesim("trace", "", "--project", WORKERS, "--state", tmp_path)
        assert done.returncode == 2
        assert "1 to 1000 characters" in done.stderr
