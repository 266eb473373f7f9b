"""Settings outside the platform's limits, for each command that reads a project."""

from pathlib import Path

import pytest

from tests.processes import edgesim

RULES = """
[[r2.things.notifications]]
queue = "jobs"
[[r2.things.notifications]]
queue = "jobs"
suffix = ".gz"
"""
WRONG = {
    "push consumer": (
        "[[queues.consumers]]\nqueue = 'jobs'\nmax_batch_size = 500",
        "",
        "wrangler.toml: queues.consumers[0].max_batch_size: must be 1 to 100, not 500",
    ),
    "pull consumer": (
        "",
        "[queues.jobs.pull]\nvisibility_timeout_ms = -1",
        "edgesim.toml: queues.jobs.pull.visibility_timeout_ms: must be 0 to 43200000, not -1",
    ),
    "queue": (
        "",
        "[queues.jobs]\nretention_seconds = 10",
        "edgesim.toml: queues.jobs.retention_seconds: must be 60 to 1209600, not 10",
    ),
    "notification rules": (
        "",
        RULES,
        "edgesim.toml: r2.things.notifications: rules 1 and 2 overlap: both would fire at ",
    ),
}


def project(folder: Path, worker: str, account: str) -> Path:
    """A project with one Worker."""
    (folder / "edgesim.toml").write_text(f'workers = ["."]\n{account}\n')
    (folder / "wrangler.toml").write_text(f'name = "a"\nmain = "entry.py"\n{worker}\n')
    (folder / "entry.py").write_text("")
    return folder


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("command", ["check", "doctor", "dev", "serve"])
def test_every_command_refuses_with_the_same_line(tmp_path, command, case):
    """Every command that reads the project refuses with file, key and limits; exit 2."""
    worker, account, line = WRONG[case]
    done = edgesim(command, project(tmp_path, worker, account))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{tmp_path}/{line}" in done.stderr
    assert len(done.stderr.splitlines()) == 1
