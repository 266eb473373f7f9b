"""Seeds of random sends and faults on a project of streams: every row is in each sink once."""

import json
import os
import random
from pathlib import Path

import pytest

from edgesim import faults
from edgesim.config import Project, load_project
from edgesim.config.project import DEFAULT, Overrides
from edgesim.replay import runner
from edgesim.replay.runner import Plan, ReplayReport
from edgesim.replay.targets import targets_of
from tests.simulated import write_worker
from tests.simulation import adversity
from tests.simulation.traffic import HORIZON_SECONDS

SEEDS = range(int(os.environ.get("STREAM_SEEDS", "25")))
ACCOUNT = """
workers = ["sender"]
[streams.typed]
schema = "typed.json"
[streams.raw]
[sinks.fast]
bucket = "fast"
format = "json"
roll_interval = 10
[sinks.slow]
bucket = "slow"
format = "json"
compression = "gzip"
roll_size = 0.002
[sinks.both]
bucket = "both"
format = "json"
roll_interval = 45
[pipelines.typed]
sql = "INSERT INTO fast SELECT * FROM typed; INSERT INTO slow SELECT * FROM typed"
[pipelines.mixed]
sql = "INSERT INTO both SELECT * FROM typed; INSERT INTO both SELECT * FROM raw"
"""
SCHEMA = {
    "fields": [
        {"name": "n", "type": "int64", "required": True},
        {"name": "at", "type": "timestamp"},
        {"name": "more", "type": "json"},
    ]
}
SENDER = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        records = await request.json()
        for stream in (self.env.TYPED, self.env.RAW):
            try:
                await stream.send(records)
            except Exception as error:
                print(f"not sent: {error}")
        return Response("OK")
"""
BINDINGS = [{"binding": "TYPED", "stream": "typed"}, {"binding": "RAW", "stream": "raw"}]


def sends(seed: int) -> list[str]:
    """Requests to the Worker and to the endpoints; one record in ten does not fit."""
    chance = random.Random(f"sends {seed}")
    numbers = iter(range(10**6))
    times = sorted(
        round(HORIZON_SECONDS * chance.random(), 3) for _ in range(chance.choice([5, 40]))
    )
    lines = []
    for at in times:
        records = [_record(chance, next(numbers)) for _ in range(chance.choice([1, 3, 60]))]
        path = chance.choice(["/", "/", "/cdn-cgi/edgesim/ingest/typed"])
        lines.append(json.dumps({"at": at, "request": {"path": path, "json": records}}))
    return lines


def _record(chance: random.Random, number: int) -> dict[str, object]:
    if chance.random() < 0.1:
        return {"n": str(number)}
    record: dict[str, object] = {"n": number, "unknown": True, "more": {"x": [number]}}
    return record | ({"at": 1_700_000_000_000 + number} if chance.random() < 0.5 else {})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("streams")
    (project / "edgesim.toml").write_text(ACCOUNT)
    (project / "typed.json").write_text(json.dumps(SCHEMA))
    write_worker(project, "sender", SENDER, pipelines=BINDINGS)
    return project


def replayed(folder: Path, state: Path, seed: int) -> ReplayReport:
    state.mkdir()
    project = load_project(folder, Overrides(state=state, isolation={DEFAULT: "inline"}))
    fixture, rules = state.parent / "sends.ndjson", state.parent / "faults.txt"
    fixture.write_text("\n".join(sends(seed)) + "\n")
    rules.write_text("\n".join(adversities(project, seed)) + "\n")
    found = faults.read(str(rules), targets_of(project))
    return runner.replay(Plan(project, [fixture], seed, faults=found, check=True))


def adversities(project: Project, seed: int) -> list[str]:
    """The rules of the seed that concern a part of this project.

    Without lying flushes: a stream whose positions a disk has lost twice refuses to start.
    """
    known = {name for names in targets_of(project).values() for name in names}
    rules = adversity.generate(seed)
    return [rule for rule in rules if rule.split()[0] in known and "lying-fsync" not in rule]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_of_streams_is_clean(folder, tmp_path, seed):
    """Kills, power cuts, lost replies and damaged disks: no checker reports a violation."""
    report = replayed(folder, tmp_path / "state", seed)
    assert [f"{each.checker}: {each.problem}" for each in report.violations] == []
    assert report.drained


def test_the_checker_notices(folder, tmp_path, monkeypatch):
    """A stream that acknowledges records and drops some of them is reported."""
    method = "edgesim.pipelines.streams.window.StreamWindow.lines"
    monkeypatch.setattr(method, lambda _: iter(()))
    report = replayed(folder, tmp_path / "state", 0)
    assert any("accepted rows are in no file" in each.problem for each in report.violations)
