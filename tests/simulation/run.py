"""Run one seed: its traffic, its faults, the whole chain into ClickHouse, every checker.

python -m tests.simulation.run --seeds 1000 --first 0      (make sim SEEDS=1000)
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import structlog

from edgesim import faults
from edgesim.cli import logs
from edgesim.clickhouse.chdb.driver import ChdbClickHouse
from edgesim.config import load_project
from edgesim.config.project import DEFAULT, Overrides
from edgesim.errors import RunError
from edgesim.model import read_all
from edgesim.r2.bucket import R2ObjectBody
from edgesim.replay import checkers, runner
from edgesim.replay.expectations import read_lines
from edgesim.replay.runner import Plan, ReplayReport
from edgesim.replay.shared_database import database
from edgesim.replay.targets import targets_of
from edgesim.replay.virtual_loop import run_virtual
from edgesim.replay.world import World
from tests.processes import ROOT, WORKERS
from tests.simulation import adversity, traffic
from tests.simulation.tally import Tally

FAST_DISK = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
FAILURES = ROOT / ".simulation"
PROJECT = Path(__file__).parent / "project"


async def rows_are_records(world: World) -> list[str]:
    """Every event that is in an object is a row of `events`, and no event is two rows.

    Exception: an object whose message went to the dead-letter queue is not inserted.
    """
    [[rows, ids]] = json.loads(
        await world.ask("SELECT toUInt32(count()), toUInt32(uniqExact(match_id)) FROM events")
    )["data"]
    stored = len(world.history.accepted["events"])
    problems = []
    if rows != ids:
        problems.append(f"{rows} rows of events have {ids} different ids")
    stored -= world.history.damaged["events"]
    if rows < stored and not _dead(world) and not world.history.lied:
        problems.append(f"{stored} events were accepted, {rows} are rows, and nothing died")
    return problems


async def uploads_are_whole(world: World) -> list[str]:
    """Every object that the uploader reports as stored has all its parts or is reported damaged."""
    archive = world.simulator.primitives.bucket("archive")
    problems, unreadable = [], len(world.history.unreadable)
    async for found in world.simulator.primitives.objects("stored", ""):
        if ("stored", found.key) in world.history.unreadable:
            continue
        async for lines in read_lines(world.simulator, "stored", found.key):
            for said in map(msgspec.json.decode, lines):
                try:
                    there = await archive.get(said["key"])
                    if not isinstance(there, R2ObjectBody) or there.object.size != said["size"]:
                        problems.append(f"{said} was stored, and {there} is there")
                        continue
                    whole = set(await read_all(there.body)) == {ord("x")}
                except RunError as error:
                    unreadable += 1
                    whole = unreadable <= world.history.blobs_damaged
                    problems += [] if whole else [f"{said} cannot be read: {error}"]
                else:
                    problems += [] if whole else [f"{said} was stored, and other bytes are there"]
    return problems


def _dead(world):
    """Return True if the platform or the insert Worker sent anything to a dead-letter queue."""
    consumers = world.project.workers["insert"].settings.queues.consumers
    names = {consumer.dead_letter_queue for consumer in consumers}
    return any(flow.entered for name, flow in world.history.queues.items() if name in names)


LOG_DAMAGE = (
    "pipeline log damaged",
    "pipeline log damaged, records lost",
    "pipeline log lost records",
    "pipeline log torn at its end",
    "pipeline log without a whole frame, set aside",
)


class Heard:
    """A log processor that counts events by name."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.cost: Counter[str] = Counter()

    def __call__(self, _logger: Any, _method: str, entry: Any) -> Any:
        self.events[entry["event"]] += 1
        return entry

    async def damage(self, world: World) -> list[str]:
        """All damage is in the log, and the damaged bytes of a Pipeline's log are kept.

        Exception: data lost to a lying flush leaves no trace to detect.
        """
        problems = []
        unreadable = len(world.history.unreadable)
        if unreadable > (said := self.events["r2 object damaged"]):
            problems.append(f"{unreadable} objects cannot be read, and the log has {said} of them")
        lost = world.history.missing.total()
        self.cost = +Counter({"object unreadable": unreadable, "records of a log lost": lost})
        if not lost or world.disk is None or world.disk.medium.cuts["promise broken"]:
            return problems
        if not any(self.events[each] for each in LOG_DAMAGE):
            problems.append(f"{lost} records are lost, and the log does not say so")
        files = (world.project.state / "pipelines").rglob("*")
        if not any(path.suffix in {".damaged", ".broken"} for path in files):
            problems.append(f"{lost} records are lost, and nothing of them was set aside")
        return problems


CHECKERS = {
    **checkers.CHECKERS,
    "each event one row": rows_are_records,
    "uploads are whole": uploads_are_whole,
}


class Simulation:
    """Runs seeds, all on one ClickHouse engine."""

    def __init__(self, engine: ChdbClickHouse, folder: Path, isolation: str = "inline") -> None:
        self._engine = engine
        self._folder = folder
        self._isolation = isolation
        self.heard = Heard()

    def run(self, seed: int) -> ReplayReport:
        """Run one seed and return its report; its traffic and faults stay in its folder."""
        folder = self.folder(seed)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "traffic.ndjson").write_text("\n".join(traffic.generate(seed)) + "\n")
        rules = adversity.generate(seed, zygotes=self._isolation != "inline")
        (folder / "faults.txt").write_text("\n".join(rules) + "\n")
        return self._replay(PROJECT, folder / "traffic.ndjson", folder / "faults.txt", seed)

    def again(self, kept: Path, seed: int) -> ReplayReport:
        """Run a kept case (traffic over this repository's Workers, faults) and return its report.

        Such a case is kept because the traffic of a seed changes with the generator.
        """
        return self._replay(WORKERS, kept / "traffic.ndjson.gz", kept / "faults.txt", seed)

    def _replay(self, root: Path, fixture: Path, spec: Path, seed: int) -> ReplayReport:
        state = self.folder(seed) / "state"
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir(parents=True)  # as in a replay: creating it is a durable step
        project = load_project(root, Overrides(state=state, isolation={DEFAULT: self._isolation}))
        wanted = {**CHECKERS, "damage is said": self.heard.damage}
        self.heard.events.clear()
        if root != PROJECT:
            del wanted["uploads are whole"]
        plan = Plan(
            project,
            [fixture],
            seed,
            faults=faults.read(str(spec), targets_of(project)),
            check=True,
            checkers=wanted,
            open_database=partial(database, self._engine, f"seed_{seed}"),
        )
        return runner.replay(plan)

    def folder(self, seed: int) -> Path:
        return self._folder / f"seed-{seed}"

    def keep(self, seed: int) -> str:
        """Copy a failing seed's files to a permanent folder; return the command that repeats it."""
        kept = FAILURES / f"seed-{seed}"
        kept.mkdir(parents=True, exist_ok=True)
        for name in ("traffic.ndjson", "faults.txt"):
            shutil.copy(self.folder(seed) / name, kept / name)
        where = kept.relative_to(ROOT)
        return (
            f"edgesim replay {where}/traffic.ndjson --faults {where}/faults.txt --seed {seed} "
            f"--project {PROJECT.relative_to(ROOT)} --isolation {self._isolation} --check"
        )


@contextmanager
def open_simulation(isolation: str = "inline") -> Iterator[Simulation]:
    """A simulation with an engine and a folder on a fast disk; both are removed at the end."""
    with tempfile.TemporaryDirectory(prefix="edgesim-simulation-", dir=FAST_DISK) as folder:
        engine = ChdbClickHouse(Path(folder) / "clickhouse")
        simulation = Simulation(engine, Path(folder), isolation)
        processors = structlog.get_config()["processors"]  # the list that existing loggers use
        processors.insert(0, simulation.heard)
        try:
            yield simulation
        finally:
            processors.remove(simulation.heard)
            run_virtual(lambda _: engine.close())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--isolation", default="inline")
    parser.add_argument("--until-failure", action="store_true", help="stop at the first one")
    options = parser.parse_args()
    logs.configure(verbose=False)
    failed = 0
    tally = Tally()
    began = time.perf_counter()
    with open_simulation(options.isolation) as simulation:
        for number, seed in enumerate(range(options.first, options.first + options.seeds), 1):
            try:
                report = simulation.run(seed)
                problems = [f"{each.checker}: {each.problem}" for each in report.violations]
                if not report.drained:
                    problems.append("not drained")
                tally.add(report, simulation.heard.cost)
            except Exception as error:  # noqa: BLE001 (the seed must be printed for any exception)
                import traceback

                traceback.print_exc()
                problems = [f"{type(error).__name__}: {error}"]
            if problems:
                failed += 1
                print(f"seed {seed} FAILED: {'; '.join(problems)}")
                print(f"  repeat: {simulation.keep(seed)}", flush=True)
                if options.until_failure:
                    break
            shutil.rmtree(simulation.folder(seed), ignore_errors=True)
            if number % 50 == 0:
                took = time.perf_counter() - began
                print(f"{number} seeds, {failed} failed, {took / number:.2f} s each", flush=True)
    print(f"{options.seeds} seeds, {failed} failed; what took effect:")
    print("\n".join(tally.lines()))
    zygotes = options.isolation != "inline"
    if never := tally.missing(options.seeds, zygotes=zygotes):
        print(f"never happened: {', '.join(sorted(never))}")
    return 1 if failed or never else 0


if __name__ == "__main__":
    sys.exit(main())
