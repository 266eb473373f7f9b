"""`edgesim cost`: for a load, a replay's report, and a running project."""

import json
import shutil

import pytest

from tests.processes import WORKERS, dev, edgesim

EVENT = {"event": "kill", "player_id": "p1", "ts": 1_767_225_600_000}


def test_a_billion_a_day():
    """A rate and a number per day give the same table, which states the date of its prices."""
    done = edgesim("cost", "--events-per-day", "1e9")
    assert done.returncode == 0, done.stderr
    assert "prices of 20" in done.stdout
    [total] = [line for line in done.stdout.splitlines() if line.startswith("all")]
    assert 9_000 < float(total.split()[1].replace(",", "")) < 12_000
    assert edgesim("cost", "--rate", str(1e9 / 86_400)).stdout == done.stdout


def test_of_a_report(tmp_path):
    """A replay's report is billed as it ran, and its CPU and sizes are used for the month."""
    fixture = tmp_path / "some.ndjson"
    fixture.write_text((json.dumps(EVENT) + "\n") * 50)
    project = tmp_path / "workers"
    shutil.copytree(WORKERS, project, ignore=shutil.ignore_patterns(".edgesim"))
    account = project / "edgesim.toml"
    account.write_text(account.read_text().replace("max_seconds = 90", "max_seconds = 1"))
    command = ("replay", fixture, "--project", project, "--isolation", "inline")
    report = tmp_path / "report.json"
    report.write_text(edgesim(*command, "--report", "json", "--speed", "realtime").stdout)
    shown = json.loads(edgesim("cost", "--project", WORKERS, "--report", report, "--json").stdout)
    billed = {(line["stage"], line["item"]): line["quantity"] for line in shown["used"]["lines"]}
    assert billed["receiver", "requests"] == 50
    assert billed["queue ingest", "queue_operations"] == 3
    assert billed["r2 events", "r2_class_a"] == billed["r2 events", "r2_class_b"] == 1
    size = json.loads(report.read_text())["stats"]["pipelines"]["events"]["bytes"]
    assert shown["load"]["event_bytes"] == size / 50
    assert shown["load"]["receiver_cpu_ms"] == billed["receiver", "cpu_ms"] / 50


def test_of_a_running_project(tmp_path):
    """--used reads the running project's statistics; a flag overrides a value."""
    with dev(WORKERS, tmp_path, "--no-reload", "--isolation", "inline") as running:
        running.post([EVENT] * 10)
        running.drain()
        command = ("cost", "--project", WORKERS, "--state", tmp_path, "--used", "--json")
        shown = json.loads(edgesim(*command, "--tail-cpu-ms", "7").stdout)
        billed = {
            (line["stage"], line["item"]): line["quantity"] for line in shown["used"]["lines"]
        }
        assert billed["receiver", "requests"] == 1
        assert shown["load"]["events_per_request"] == 10
        assert shown["load"]["tail_cpu_ms"] == 7


def test_virtual_time_has_no_cpu(tmp_path):
    """A report of virtual time has no CPU times and cannot be billed; the error names the cure."""
    report = tmp_path / "report.json"
    report.write_text('{"stats": {"receiver": {}}}')
    failed = edgesim("cost", "--project", WORKERS, "--report", report)
    assert failed.returncode == 2
    assert "--speed realtime" in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--rate", "0"), "not a number above 0"),
        (("--rate", "1", "--events-per-day", "1"), "not both"),
        (("--report", "nowhere.json"), "nowhere.json"),
        (("--report", __file__), "is no report"),
    ],
)
def test_wrong_arguments(arguments, expected):
    """The error is one line that names the argument, exit 2."""
    failed = edgesim("cost", "--project", WORKERS, *arguments)
    assert failed.returncode == 2
    assert expected in failed.stderr
    assert "Traceback" not in failed.stderr
