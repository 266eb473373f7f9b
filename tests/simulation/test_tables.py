"""Seeds of random sends and faults: each row is in each Parquet file or Iceberg table once."""

import json
import os
import random
from pathlib import Path

import pytest

from edgesim import faults
from edgesim.config import load_project
from edgesim.config.project import DEFAULT, Overrides
from edgesim.replay import checkers, runner
from edgesim.replay.digests import Digests
from edgesim.replay.runner import Plan, ReplayReport
from edgesim.replay.targets import targets_of
from edgesim.replay.world import World
from tests.iceberg_files import parquet_rows, table_rows
from tests.simulated import write_worker
from tests.simulation import adversity
from tests.simulation.traffic import HORIZON_SECONDS

SEEDS = range(int(os.environ.get("TABLE_SEEDS", "6")))
ACCOUNT = """
workers = ["sender"]
[streams.plays]
schema = "plays.json"
[sinks.files]
bucket = "files"
roll_interval = 45
[sinks.table]
type = "r2-data-catalog"
bucket = "lake"
namespace = "games"
table = "plays"
roll_interval = 60
roll_size = 0.01
[pipelines.flow]
sql = '''
INSERT INTO files SELECT * FROM plays;
INSERT INTO "table" SELECT * FROM plays'''
"""
SCHEMA = {
    "fields": [
        {"name": "n", "type": "int64", "required": True},
        {"name": "text", "type": "string"},
        {"name": "tags", "type": "list", "items": {"type": "string"}},
    ]
}
SENDER = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        try:
            await self.env.PLAYS.send(await request.json())
        except Exception as error:
            print(f"not sent: {error}")
        return Response("OK")
"""
STORES = ("disk", "pipelines", "platform", "clock", "r2", "workers", "sender")


async def rows_of_files(world: World) -> Digests:
    bucket = world.simulator.primitives.bucket("files")
    stored = Digests()
    async for found in world.simulator.primitives.objects("files", ""):
        stored.add(await parquet_rows(bucket, found.key))
    return stored


async def rows_of_table(world: World) -> Digests:
    rows = await table_rows(world.simulator.primitives.catalogs["lake"], "games", "plays")
    for row in rows:
        del row["__ingest_ts"]
    stored = Digests()
    stored.add(rows)
    return stored


async def each_row_once(world: World) -> list[str]:
    """Accepted rows are stored, and no row is stored oftener than it was sent."""
    accepted, attempted = Digests(), Digests()
    accepted.extend(world.history.accepted["plays"])
    attempted.extend(world.history.attempted["plays"])
    problems = []
    for name, stored in (
        ("files", await rows_of_files(world)),
        ("table", await rows_of_table(world)),
    ):
        if missing := accepted.beyond(stored):
            problems.append(f"{missing} accepted rows are not in the {name}")
        if twice := stored.beyond(attempted):
            problems.append(f"{twice} rows are in the {name} oftener than they were sent")
    return problems


def sends(seed: int) -> list[str]:
    chance = random.Random(f"tables {seed}")
    numbers = iter(range(10**6))
    times = sorted(round(HORIZON_SECONDS * chance.random(), 3) for _ in range(12))
    lines = []
    for at in times:
        records = [
            {"n": next(numbers), "text": "x" * chance.randrange(200), "tags": ["a", None]}
            for _ in range(chance.choice([1, 3, 60]))
        ]
        path = chance.choice(["/", "/cdn-cgi/edgesim/ingest/plays"])
        lines.append(json.dumps({"at": at, "request": {"path": path, "json": records}}))
    return lines


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("tables")
    (project / "edgesim.toml").write_text(ACCOUNT)
    (project / "plays.json").write_text(json.dumps(SCHEMA))
    bindings = [{"binding": "PLAYS", "stream": "plays"}]
    write_worker(project, "sender", SENDER, pipelines=bindings)
    return project


def replayed(folder: Path, state: Path, seed: int) -> ReplayReport:
    state.mkdir()
    project = load_project(folder, Overrides(state=state, isolation={DEFAULT: "inline"}))
    fixture, rules = state.parent / "sends.ndjson", state.parent / "faults.txt"
    fixture.write_text("\n".join(sends(seed)) + "\n")
    rules.write_text("\n".join(adversities(seed)) + "\n")
    found = faults.read(str(rules), targets_of(project))
    wanted = {**checkers.CHECKERS, "each row once": each_row_once}
    return runner.replay(Plan(project, [fixture], seed, faults=found, check=True, checkers=wanted))


def adversities(seed: int) -> list[str]:
    """The seed's faults of the parts of this project, and a kill; no damage of stored bytes."""
    rules = [
        rule
        for rule in adversity.generate(seed)
        if rule.split()[0].partition(".")[0] in STORES
        and "lying-fsync" not in rule
        and "flip" not in rule
    ]
    return [*rules, f"platform kill at {20 + 10 * seed}s"]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_of_tables_is_clean(folder, tmp_path, seed):
    """Kills, power cuts, lost replies and failing stores: no checker reports a violation."""
    report = replayed(folder, tmp_path / "state", seed)
    assert [f"{each.checker}: {each.problem}" for each in report.violations] == []
    assert report.drained


@pytest.mark.timeout(600)
def test_the_checker_notices(folder, tmp_path, monkeypatch):
    """A sink that commits no file is reported."""
    method = "edgesim.pipelines.sinks.catalog_table.CatalogTable._commit"

    async def forget(*_: object) -> None:
        pass

    monkeypatch.setattr(method, forget)
    report = replayed(folder, tmp_path / "state", 0)
    assert any("rows are not in the table" in each.problem for each in report.violations)
