"""`edgesim doctor`, and starts that fail for the same reasons."""

import json
import shutil

import pytest

from edgesim.system import VARIABLE
from tests.processes import WORKERS, dev, edgesim


@pytest.mark.linux
def test_a_healthy_project(tmp_path):
    """Each check is one line and none is a problem; exit 0; the doctor leaves nothing behind."""
    done = edgesim("doctor", WORKERS, "--state", tmp_path / "state")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    for check in ("python", "landlock", "seccomp", "worker insert", "r2", "queues", "clickhouse"):
        assert any(line.split(None, 1)[1].startswith(f"{check}: ") for line in lines), check
    assert not any(line.startswith("problem") for line in lines)
    for command in (("r2", "ls", "events"), ("queue", "peek", "edgesim-doctor")):
        left = edgesim(*command, "--project", WORKERS, "--state", tmp_path / "state")
        assert left.stdout == ""


def test_beside_a_running_project(tmp_path):
    """The doctor skips the embedded stores that a running project has open."""
    with dev(WORKERS, tmp_path / "state", "--no-reload"):
        done = edgesim("doctor", WORKERS, "--state", tmp_path / "state", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    said = {each["check"]: each["said"] for each in json.loads(done.stdout)["checks"]}
    assert said["queues"] == "open in the project that runs on this state"


def test_a_worker_that_does_not_load(tmp_path):
    """The finding names its file, exit 1; the other checks continue."""
    project = tmp_path / "project"
    shutil.copytree(WORKERS, project, ignore=shutil.ignore_patterns(".edgesim"))
    main = next((project / "insert").glob("*.py"))
    for file in (project / "insert").glob("*.py"):
        if "WorkerEntrypoint" in file.read_text():
            main = file
    main.write_text("import no_such_module\n")
    done = edgesim("doctor", project, "--state", tmp_path / "state", "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    (problem,) = (each for each in report["checks"] if each["status"] == "problem")
    assert problem["check"] == "worker insert"
    assert "no_such_module" in problem["said"]
    assert str(main) in problem["cure"]
    assert report["healthy"] is False


def test_a_configuration_that_is_wrong(tmp_path):
    """Exit 2, as with every command."""
    (tmp_path / "edgesim.toml").write_text("wrokers = []\n")
    done = edgesim("doctor", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "edgesim.toml" in done.stderr


def test_a_server_that_is_not_there(tmp_path):
    """The doctor reports a problem and its cure; a start fails with one line: file, key, cure."""
    given = (
        WORKERS,
        "--state",
        tmp_path / "state",
        "--clickhouse",
        "clickhouse+http://127.0.0.1:1",
    )
    done = edgesim("doctor", *given)
    assert done.returncode == 1
    assert "out of reach" in done.stdout
    assert "--clickhouse URL" in done.stdout
    refused = edgesim("dev", *given, "--port", 0)
    assert (refused.returncode, refused.stdout) == (2, "")
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"edgesim: {WORKERS}/edgesim.toml: backends.clickhouse: ClickHouse at ")


def test_a_system_without_the_kernels_guards(tmp_path, monkeypatch):
    """The doctor warns that an audit hook is the only guard, for the machine and each Worker."""
    monkeypatch.setenv(VARIABLE, "1")
    done = edgesim("doctor", WORKERS, "--state", tmp_path / "state", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    checks = {each["check"]: each for each in json.loads(done.stdout)["checks"]}
    assert not {"landlock", "seccomp"} & checks.keys()
    assert checks["system"]["status"] == checks["worker insert"]["status"] == "warning"
    assert "audit hook" in checks["system"]["said"]
    assert checks["worker insert"]["said"].endswith("guards: audit hook")
