"""`edgesim plan`: from an empty account to applied, changed and applied again."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.processes import dev, edgesim
from tests.simulated import write_worker

ACCOUNT = """
workers = ["main"]
[streams.clicks]
schema = "clicks.json"
[sinks.lake]
bucket = "lake"
format = "json"
[pipelines.flow]
sql = "INSERT INTO lake SELECT * FROM clicks"
"""
MODULE = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("OK")
"""
NPX = """#!/bin/sh
echo "$*" >>"$CALLS"
"""


def schema(*names: str) -> str:
    return json.dumps({"fields": [{"name": name, "type": "string"} for name in names]})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "edgesim.toml").write_text(ACCOUNT)
    (tmp_path / "clicks.json").write_text(schema("id"))
    write_worker(tmp_path, "main", MODULE)
    return tmp_path


def plan(project: Path, *arguments: object) -> str:
    done = edgesim("plan", project, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_script(script: Path, **more: str) -> list[str]:
    """Run the script with an npx that only notes its arguments."""
    folder = script.parent / "bin"
    folder.mkdir(exist_ok=True)
    (folder / "npx").write_text(NPX)
    (folder / "npx").chmod(0o755)
    calls = script.parent / "calls"
    calls.unlink(missing_ok=True)
    variables = {"PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(calls)} | more
    subprocess.run([script], cwd=script.parent, env=variables, check=True, capture_output=True)
    prefix = "--yes wrangler@4 basin pipelines "
    return [line.removeprefix(prefix) for line in calls.read_text().splitlines()]


def test_from_nothing_to_applied_and_changed(project, tmp_path):
    """Everything is created; once applied nothing is left; a schema recreates what uses it."""
    script = tmp_path / "change.sh"
    assert plan(project, "--out", script).splitlines() == [
        "create stream clicks: it is new",
        "create sink lake: it is new",
        "create pipeline flow: it is new",
    ]
    made = run_script(script)
    assert made[0].startswith("streams create clicks --schema-file clicks.schema.json --http-en")
    assert made[1].startswith("sinks create lake --type r2 --bucket lake --format json")
    assert made[2] == "create flow --sql INSERT INTO lake SELECT * FROM clicks"
    assert json.loads((tmp_path / "clicks.schema.json").read_text())["fields"][0]["name"] == "id"
    plan(project, "--applied")
    assert plan(project) == "nothing to change\n"
    (project / "clicks.json").write_text(schema("id", "page"))
    first, second = json.loads(plan(project, "--json", "--out", script))
    assert (first["action"], first["kind"], second["kind"]) == ("recreate", "stream", "pipeline")
    verbs = [" ".join(call.split()[:3]) for call in run_script(script)]
    assert verbs == [
        "delete flow --force",
        "streams delete clicks",
        "streams create clicks",
        "create flow --sql",
        "streams get clicks",
    ]


def test_the_script_deletes_nothing_that_it_cannot_create_again(project, tmp_path):
    """A sink with a table wants a token, and its table dropped, before anything is deleted."""
    script, account = tmp_path / "change.sh", project / "edgesim.toml"
    table = 'type = "basin-catalog"\nnamespace = "web"\ntable = "clicks"\nroll_interval = 60'
    account.write_text(ACCOUNT.replace('format = "json"', table))
    plan(project, "--applied")
    account.write_text(account.read_text().replace("= 60", "= 90"))
    assert "refuses table web.clicks" in plan(project, "--out", script)
    for given in ({}, {"CATALOG_TOKEN": "t"}, {"TABLES_DROPPED": "yes"}):
        with pytest.raises(subprocess.CalledProcessError):
            run_script(script, **given)
        assert not (tmp_path / "calls").exists()
    made = run_script(script, CATALOG_TOKEN="t", TABLES_DROPPED="yes")
    assert [call.split()[:2] for call in made] == [
        ["delete", "flow"],
        ["sinks", "delete"],
        ["sinks", "create"],
        ["create", "flow"],
    ]
    assert made[2].startswith(
        "sinks create lake --type r2-data-catalog "
    )  # wrangler knows no other


def test_a_damaged_state_file_is_one_line(project):
    """The error names the file and how to write it again."""
    (project / "cloudflare.applied.json").write_text("{")
    done = edgesim("plan", project)
    assert done.returncode == 2
    assert "cloudflare.applied.json" in done.stderr
    assert "--applied" in done.stderr


def test_dev_says_what_a_change_means(project, tmp_path):
    """A saved schema is used at once; the log has the plan, and where old records are."""
    state = tmp_path / "state"
    with dev(project, state) as running:
        path = "/cdn-cgi/edgesim/ingest/clicks"
        assert running.request(path, b'[{"id": "a"}]')[0] == 200
        (project / "clicks.json").write_text(schema("id", "page"))
        running.wait_log("on Cloudflare this change means", "recreate stream clicks")
        running.wait_log("its buffered records are set aside", "clicks/schema-1")
        assert running.request(path, b'[{"id": "b", "page": "/"}]')[0] == 200
        assert running.drain()["sinks"]["lake"]["records"] == 1
        assert running.stop() == 0
    assert list((state / "pipelines" / "clicks" / "schema-1").glob("*.wal"))
