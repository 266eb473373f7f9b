"""A driver from another package: a project runs on it, and the conformance suite passes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.installed import install_example
from tests.processes import ROOT

CONFORMANCE = ROOT / "tests" / "conformance" / "test_queues.py"


class Installation:
    """An environment in which the example driver is installed."""

    def __init__(self, site: Path) -> None:
        self._variables = os.environ | {"PYTHONPATH": f"{install_example(site)}"}

    def run(self, *command: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """Run a Python module to its end."""
        return subprocess.run(
            [sys.executable, "-m", *map(str, command)],
            cwd=cwd,
            env=self._variables,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )


@pytest.fixture
def installed(tmp_path):
    """The example driver, installed."""
    return Installation(tmp_path / "site")


@pytest.fixture
def project(installed, tmp_path):
    """A new project that uses the driver."""
    folder = tmp_path / "project"
    made = installed.run("edgesim.cli", "init", folder)
    assert made.returncode == 0, made.stderr
    with (folder / "edgesim.toml").open("a") as file:
        file.write('\n[backends]\nqueues = "heap:"\n')
    return folder


def test_a_project_runs_on_it(installed, project):
    """Its events pass through the driver's queue into ClickHouse, in virtual time."""
    done = installed.run(
        *("edgesim.cli", "replay", "tests/events.ndjson", "--expect", "tests/expected.toml"),
        *("--report", "json"),
        cwd=project,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["stats"]["queues"]["ingest"]["delivered"] == 1


def test_faults_and_kills_do_not_lose_its_messages(installed, project):
    """A replay keeps a store that is not durable open across kills, as it does `memory:`."""
    done = installed.run(
        *("edgesim.cli", "replay", "tests/events.ndjson", "--check"),
        *("--faults", "platform kill at 2s; platform kill at 11.5s"),
        cwd=project,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_doctor_tests_it(installed, project):
    """`edgesim doctor` sends a message through the driver."""
    done = installed.run("edgesim.cli", "doctor", "--json", cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr
    [found] = [each for each in json.loads(done.stdout)["checks"] if each["check"] == "queues"]
    assert (found["status"], found["said"]) == ("ok", "heap:: a message went there and came back")


def test_a_wrong_url_of_it_is_one_line(installed, project):
    """The driver's own ConfigError reaches the user as one line, exit 2."""
    done = installed.run("edgesim.cli", "queue", "ls", "--queues", "heap:x", cwd=project)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("heap: takes no path")
    assert len(done.stderr.splitlines()) == 1


def test_the_conformance_suite_passes(installed):
    """The suite runs on each installed driver, in a process that has this one."""
    done = installed.run(
        *("pytest", "-q", "-p", "no:cacheprovider", CONFORMANCE),
        *("-k", "heap", "--driver-url", "heap:"),
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout.splitlines()[-1]


def test_the_conformance_suite_asks_for_a_url(installed):
    """Without a URL for an installed driver the suite fails and says what to pass."""
    done = installed.run(
        *("pytest", "-q", "-p", "no:cacheprovider", CONFORMANCE, "-k", "heap and purge"),
    )
    assert done.returncode == 1
    assert "the driver 'heap' needs --driver-url" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "file", "expected"),
    [
        ((), 'queues = "heep:"', "edgesim.toml: backends.queues: no driver for 'heep:'; did you"),
        (("--queues", "heep:"), "", "--queues: no driver for 'heep:'; did you mean heap:?"),
        (("--clickhouse", "mysql://h"), "", "--clickhouse: no driver for 'mysql://h'; known"),
    ],
)
@pytest.mark.parametrize("command", ["check", "doctor", "queue"])
def test_an_unknown_scheme_is_refused_by_every_command(
    installed, project, command, arguments, file, expected
):
    """The line names file and key, or the flag; the schemes of installed packages count."""
    if command == "check" and arguments:
        pytest.skip("`edgesim check` takes no backend flags")
    if file:
        path = project / "edgesim.toml"
        path.write_text(path.read_text().replace('queues = "heap:"', file))
    words = [command, "ls"] if command == "queue" else [command]
    done = installed.run("edgesim.cli", *words, *arguments, cwd=project)
    assert done.returncode == 2, done.stdout + done.stderr
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1
