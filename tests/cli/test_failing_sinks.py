"""A Worker damages the Iceberg table of a sink: edgesim starts, says so, and loses no record."""

import json
import time
from pathlib import Path

import pytest

from tests.cli.test_iceberg import ACCOUNT, PLAY, SCHEMA, get, send
from tests.iceberg_client import rows_of_table
from tests.processes import dev, edgesim
from tests.simulated import write_worker

WAIT_SECONDS = 60
ATTACKER = """
import json
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        for key, content in json.loads(await request.text()).items():
            await self.env.LAKE.put(key, content)
        return Response("OK")
"""
BUCKETS = {"r2_buckets": [{"binding": "LAKE", "bucket_name": "lake"}]}
HEALTH = "/cdn-cgi/edgesim/health"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "edgesim.toml").write_text(ACCOUNT)
    (folder / "plays.json").write_text(json.dumps(SCHEMA))
    (folder / "flow.sql").write_text('INSERT INTO "table" SELECT * FROM plays')
    write_worker(folder, "main", ATTACKER, **BUCKETS)
    return folder


def failing(running) -> dict[str, str]:
    found: dict[str, str] = json.loads(get(running, HEALTH)[1]).get("failing_sinks", {})
    return found


def wait_until(condition) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("damage", ["metadata", "the catalog itself"])
def test_a_start_with_a_damaged_table(project, damage):
    """The start goes on, every command names the sink, and stores its record when mended."""
    state = project / ".edgesim"
    with dev(project, state, "--no-reload") as running:
        send(running, PLAY)
        running.drain()
        assert failing(running) == {}
        listed = edgesim("r2", "ls", "lake", "--json", "--project", project).stdout
        keys = sorted(each["key"] for each in json.loads(listed))
        (key,) = [
            key
            for key in keys
            if key.endswith("catalog.json" if damage != "metadata" else ".metadata.json")
            and "00000-" not in key
        ]
        kept = edgesim("r2", "get", "lake", key, "--project", project).stdout
        assert running.post({key: "garbage"}) == 200
        assert running.stop() == 0
    with dev(project, state, "--no-reload") as running:
        running.wait_log("sink is failing, will try again", "table")
        assert "is damaged" in failing(running)["table"]
        assert json.loads(get(running, HEALTH, host="evil.example")[1]) == {"status": "ok"}
        send(running, PLAY | {"id": "b"})
        for command in (("check",), ("plan",)):
            done = edgesim(*command, project)
            assert "sink table of the project that runs at" in done.stdout + done.stderr
        found = running.stats()
        assert found["sinks"]["table"]["failing"] == 1
        assert found["streams"]["plays"]["pending"] == 1
        _, metrics = get(running, "/cdn-cgi/edgesim/metrics")
        assert 'edgesim_sinks_failing{sink="table"} 1' in metrics
        assert running.post({key: kept}) == 200
        wait_until(lambda: failing(running) == {})
        running.drain()
        rows = rows_of_table(running.url, "lake", "games.plays")
        assert sorted(row["id"] for row in rows) == ["a", "b"]
        assert running.stop() == 0
