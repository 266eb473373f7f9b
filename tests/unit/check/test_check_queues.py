"""Warnings for queues without a consumer, in ``edgesim check`` and when dev or serve starts."""

import json

import pytest

from edgesim.check import check_project
from edgesim.config import load_project
from tests.processes import dev

SOURCE = """
from workers import Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("ok")

    async def queue(self, batch, env=None, ctx=None):
        pass
"""
RULE = '[[r2.things.notifications]]\nqueue = "heard"\n'
PROBLEM = (
    "notifications of bucket 'things' go to queue 'heard', "
    "which no Worker consumes and nobody pulls"
)
CONSUMES = {"queue": "other"}


@pytest.fixture
def project(tmp_path):
    """Return a function that writes a project of one Worker with these queues and toml lines."""

    def write(toml="", **queues):
        folder = tmp_path / "w"
        folder.mkdir(exist_ok=True)
        (folder / "w.py").write_text(SOURCE)
        wrangler = {
            "name": "w",
            "main": "w.py",
            "compatibility_date": "2026-10-01",
            "compatibility_flags": ["python_workers"],
            "queues": {"consumers": [CONSUMES]} | queues,
        }
        (folder / "wrangler.jsonc").write_text(json.dumps(wrangler, indent=1))
        (tmp_path / "edgesim.toml").write_text(
            f'workers = ["w"]\n{toml}[backends]\nr2 = "memory:"\nqueues = "memory:"\n'
        )
        return tmp_path

    return write


def found(folder):
    """File name, line, level and problem of each finding; all must be of the queue rule."""
    findings = check_project(load_project(folder))
    assert all(each.rule == "unconsumed-queue" for each in findings)
    return [
        (each.file.rpartition("/")[2], each.line, each.level, each.problem) for each in findings
    ]


def test_notification_rule_for_a_queue_that_nobody_consumes(project):
    """The finding has the rule's line and names the bucket and the queue."""
    assert found(project(RULE)) == [
        (
            "edgesim.toml",
            3,
            "warning",
            PROBLEM,
        )
    ]


@pytest.mark.parametrize(
    ("toml", "queues"),
    [
        (RULE, {"consumers": [{"queue": "heard"}]}),
        (RULE + "[queues.heard.pull]\n", {}),
        (RULE, {"consumers": [CONSUMES | {"dead_letter_queue": "heard"}]}),
        (RULE + '[queues.other2.pull]\ndead_letter_queue = "heard"\n', {}),
    ],
    ids=["pushed", "pulled", "dead letters", "dead letters of a pull"],
)
def test_queues_that_are_fine(project, toml, queues):
    """A Worker, a pull consumer or use as a dead-letter queue counts as a consumer."""
    producers = [{"binding": "Q", "queue": "heard"}]
    assert found(project(toml, producers=producers, **queues)) == []


@pytest.mark.parametrize("command", ["dev", "serve"])
def test_the_start_warns_too(project, tmp_path, command):
    """The start logs each rule and each producer of such a queue; check reports rules only."""
    folder = project(RULE, producers=[{"binding": "Q", "queue": "sent"}])
    assert len(found(folder)) == 1
    arguments = ("--isolation", "inline", "--no-reload") if command == "dev" else ()
    with dev(folder, tmp_path / "state", *arguments, command=command) as running:
        running.wait_log("queue has no consumer", "queues.producers")
        lines = [line for line in running.log if "queue has no consumer" in line]
        assert len(lines) == 2
        assert "heard" in lines[0]
        assert "r2.things.notifications" in lines[0]
        assert "queues.producers" in lines[1]
