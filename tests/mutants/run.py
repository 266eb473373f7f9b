"""Apply each mutation to a copy of the product and report which seed or test detects it.

python -m tests.mutants.run [NAME ...]      (make mutants)

A mutation whose text is not found, and one that is not detected, are errors.
"""

import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.mutants.mutations import MUTATIONS, Mutation
from tests.processes import ROOT

SEEDS_MAX = 300
COPIED = ("edgesim", "workers", "tests", "examples", "pyproject.toml")
LEFT_OUT = shutil.ignore_patterns("node_modules", "__pycache__", ".edgesim", "bench", "isolation")
TIMEOUT_SECONDS = 900.0


class RottenError(Exception):
    """The text that a mutation changes is not in the product, or more than once."""


def check(mutation: Mutation, root: Path = ROOT) -> None:
    """Raise RottenError if the mutation cannot be applied."""
    for edit in mutation.edits:
        found = (root / edit.file).read_text().count(edit.old)
        if found != 1 or edit.old == edit.new:
            raise RottenError(f"{mutation.name}: {edit.file} has this {found} times: {edit.old!r}")


@contextmanager
def mutated(mutation: Mutation) -> Iterator[Path]:
    """Yield a copy of the product and its tests with the mutation applied."""
    check(mutation)
    fast = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="edgesim-mutant-", dir=fast) as folder:
        copy = Path(folder)
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, copy / name, ignore=LEFT_OUT)
            else:
                shutil.copy(ROOT / name, copy / name)
        for edit in mutation.edits:
            path = copy / edit.file
            path.write_text(path.read_text().replace(edit.old, edit.new))
        yield copy


def notices(mutation: Mutation, known: int | str) -> str:
    """Return the report of the seed or the test; empty if it does not detect the mutation."""
    with mutated(mutation) as copy:
        if isinstance(known, str):
            return _test(copy, known)
        return _seeds(copy, mutation.scenario, known, 1)


def caught_by(mutation: Mutation) -> str:
    """Return the seed or test that detects the mutation, with its report; empty if none does."""
    found = notices(mutation, mutation.caught_by)
    if not found and isinstance(mutation.caught_by, int):
        with mutated(mutation) as copy:
            return _seeds(copy, mutation.scenario, 0, SEEDS_MAX)
    return found


def _test(copy: Path, test: str) -> str:
    done = _run(copy, "pytest", "-q", "-x", "-p", "no:cacheprovider", test)
    return f"test {test}" if done.returncode == 1 else ""


def _seeds(copy: Path, scenario: str, first: int, count: int) -> str:
    done = _run(
        copy,
        *("tests.simulation.run", "--scenario", scenario, "--until-failure"),
        *("--first", str(first), "--seeds", str(count)),
    )
    found = re.search(r"^(\w+ seed \d+) FAILED: (.*)$", done.stdout, re.MULTILINE)
    if found is None and done.returncode:
        raise RuntimeError(f"the simulation broke: {done.stdout[-500:]} {done.stderr[-2000:]}")
    return f"{found[1]}: {found[2]}" if found else ""


def _run(copy: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="mutations with this in their name"
    )
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    chosen = [
        each
        for each in MUTATIONS
        if not options.names or any(name in each.name for name in options.names)
    ]
    for mutation in chosen:
        check(mutation)
    missed = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        running = {pool.submit(caught_by, mutation): mutation for mutation in chosen}
        for future in concurrent.futures.as_completed(running):
            found = future.result()
            missed += not found
            print(f"{running[future].name:62}  {found[:110] or 'NOT CAUGHT'}", flush=True)
    print(f"{len(chosen)} mutations, {missed} not caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
