"""Run seeds: random traffic and faults on a project in virtual time, then every checker.

python -m tests.simulation.run --seeds 1000 --first 0      (make sim SEEDS=1000)
"""

import argparse
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from edgesim import faults
from edgesim.cli import logs
from edgesim.clickhouse.chdb.driver import ChdbClickHouse
from edgesim.config import load_project
from edgesim.config.project import DEFAULT, Overrides
from edgesim.replay import runner
from edgesim.replay.checkers import CHECKERS, Checker
from edgesim.replay.runner import Plan, ReplayReport
from edgesim.replay.shared_database import database
from edgesim.replay.targets import targets_of
from edgesim.replay.virtual_loop import run_virtual
from edgesim.replay.world import World
from tests.processes import ROOT, WORKERS
from tests.simulation.scenarios import SCENARIOS, Scenario
from tests.simulation.scenarios.events import rows_are_records
from tests.simulation.tally import Tally

FAST_DISK = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
FAILURES = ROOT / ".simulation"
DEFAULT_SCENARIOS = ["events", "streams"]
SCENARIO_HELP = "default: events and streams; a seed of tables takes seconds"


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


class Simulation:
    """Runs seeds, all on one ClickHouse engine."""

    def __init__(self, engine: ChdbClickHouse, folder: Path, isolation: str = "inline") -> None:
        self._engine = engine
        self._folder = folder
        self._isolation = isolation
        self.heard = Heard()

    @property
    def zygotes(self) -> bool:
        """Isolates are processes."""
        return self._isolation != "inline"

    def run(self, scenario: Scenario, seed: int) -> ReplayReport:
        """Run one seed and return its report; its traffic and faults stay in its folder."""
        folder = self.folder(seed)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "traffic.ndjson").write_text("\n".join(scenario.traffic(seed)) + "\n")
        rules = scenario.faults(seed, self.zygotes)
        (folder / "faults.txt").write_text("\n".join(rules) + "\n")
        wanted = {**CHECKERS, **scenario.checkers}
        if scenario.says_damage:
            wanted["damage is said"] = self.heard.damage
        files = folder / "traffic.ndjson", folder / "faults.txt"
        return self._replay(scenario.project, *files, seed, wanted)

    def again(self, kept: Path, seed: int) -> ReplayReport:
        """Run a kept case (traffic over this repository's Workers, faults) and return its report.

        Such a case is kept because the traffic of a seed changes with the generator.
        """
        wanted = {
            **CHECKERS,
            "each event one row": rows_are_records,
            "damage is said": self.heard.damage,
        }
        files = kept / "traffic.ndjson.gz", kept / "faults.txt"
        return self._replay(WORKERS, *files, seed, wanted)

    def _replay(
        self, root: Path, fixture: Path, spec: Path, seed: int, wanted: dict[str, Checker]
    ) -> ReplayReport:
        state = self.folder(seed) / "state"
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir(parents=True)  # as in a replay: creating it is a durable step
        project = load_project(root, Overrides(state=state, isolation={DEFAULT: self._isolation}))
        self.heard.events.clear()
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

    def keep(self, scenario: Scenario, seed: int) -> str:
        """Copy a failing seed's files to a permanent folder; return the command that repeats it."""
        kept = FAILURES / f"{scenario.project.name}-{seed}"
        kept.mkdir(parents=True, exist_ok=True)
        for name in ("traffic.ndjson", "faults.txt"):
            shutil.copy(self.folder(seed) / name, kept / name)
        where = kept.relative_to(ROOT)
        return (
            f"edgesim replay {where}/traffic.ndjson --faults {where}/faults.txt --seed {seed} "
            f"--project {scenario.project.relative_to(ROOT)} --isolation {self._isolation} --check"
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


def run_seeds(simulation: Simulation, name: str, options: argparse.Namespace) -> bool:
    """Run the seeds of one scenario, print failures and a summary; return True if all is well."""
    scenario = SCENARIOS[name]
    failed = 0
    tally = Tally()
    began = time.perf_counter()
    for number, seed in enumerate(range(options.first, options.first + options.seeds), 1):
        problems = _problems(simulation, scenario, seed, tally)
        if problems:
            failed += 1
            print(f"{name} seed {seed} FAILED: {'; '.join(problems)}")
            print(f"  repeat: {simulation.keep(scenario, seed)}", flush=True)
            if options.until_failure:
                break
        shutil.rmtree(simulation.folder(seed), ignore_errors=True)
        if number % 50 == 0:
            took = time.perf_counter() - began
            print(
                f"{name}: {number} seeds, {failed} failed, {took / number:.2f} s each", flush=True
            )
    print(f"{name}: {options.seeds} seeds, {failed} failed; what took effect:")
    print("\n".join(tally.lines()))
    if never := tally.missing(options.seeds, scenario.effects, zygotes=simulation.zygotes):
        print(f"{name}: never happened: {', '.join(sorted(never))}")
    return not failed and not never


def _problems(simulation: Simulation, scenario: Scenario, seed: int, tally: Tally) -> list[str]:
    try:
        report = simulation.run(scenario, seed)
    except Exception as error:  # noqa: BLE001 (the seed must be printed for any exception)
        traceback.print_exc()
        return [f"{type(error).__name__}: {error}"]
    tally.add(report, simulation.heard.cost)
    problems = [f"{each.checker}: {each.problem}" for each in report.violations]
    return problems if report.drained else [*problems, "not drained"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenario", choices=SCENARIOS, action="append", help=SCENARIO_HELP)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--isolation", default="inline")
    parser.add_argument("--until-failure", action="store_true", help="stop at the first one")
    options = parser.parse_args()
    logs.configure(verbose=False)
    with open_simulation(options.isolation) as simulation:
        passed = [
            run_seeds(simulation, name, options) for name in options.scenario or DEFAULT_SCENARIOS
        ]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
