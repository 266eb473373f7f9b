"""The dynamic analysis: import each Worker's module under the platform's restrictions.

Each import runs in a process of its own (``python -m edgesim.check.loading MAIN SECONDS``), which
writes a JSON report to standard output; output of worker code goes to standard error.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgesim.check.findings import Finding, Level, relative
from edgesim.config import WorkerConfig
from edgesim.isolates.guest.worker_import import add_own_modules, load, reset_import_path

STARTUP_SECONDS = 1.0
MEASUREMENTS = 3
"""A module is imported so often before it is called slow: a loaded machine spoils single times."""
LOADING_SECONDS_MAX = 30
"""Limit of one import's CPU time; on a loaded machine it takes longer by the clock."""
WAITING_SECONDS_MAX = 120.0
"""Limit of one import by the clock, for a module that waits."""
NOT_HERE = "not in edgesim"
"""Marks the import errors of SDK features that edgesim does not support."""
REFUSAL = "Disallowed operation called within global scope"
_EVENTS = {
    "socket.connect": "a connection",
    "socket.bind": "a socket",
    "subprocess.Popen": "a process",
    "os.fork": "a process",
    "_thread.start_new_thread": "a thread",
    "_thread.start_joinable_thread": "a thread",
    "os.system": "a process",
}


def check_loading(worker: WorkerConfig, root: Path) -> Iterator[Finding]:
    """Yield the findings of one import: exceptions, refused operations, CPU time above 1 s."""
    report, problem = _imported(worker)
    if report is None:
        yield _finding(worker, root, "loading", *problem)
        return
    for each in report["findings"]:
        yield Finding(relative(Path(each.pop("file")), root), **each)
    if not report["loaded"]:
        return  # the time of half an import says nothing
    seconds = report["seconds"]
    for _ in range(1, MEASUREMENTS):
        if seconds <= STARTUP_SECONDS:
            return
        again, _ = _imported(worker)
        seconds = min(seconds, again["seconds"] if again is not None else seconds)
    if seconds > STARTUP_SECONDS:
        text = f"importing the module took {seconds:.1f} s of CPU; there it may take 1"
        yield _finding(worker, root, "startup", text, "Import less", "warning")


def _imported(worker: WorkerConfig) -> tuple[dict[str, Any] | None, tuple[str, str]]:
    """Import the module in a process; returns its report, or None with the problem and the cure."""
    env = json.dumps([[each.name, each.kind, each.value] for each in worker.bindings()])
    try:
        finished = subprocess.run(  # noqa: S603 (our own module)
            [
                *(sys.executable, "-P", "-B", "-m", "edgesim.check.loading"),
                *(str(worker.main), str(LOADING_SECONDS_MAX)),
            ],
            input=env,
            capture_output=True,
            text=True,
            timeout=WAITING_SECONDS_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        problem = f"importing the module takes more than {WAITING_SECONDS_MAX:.0f} s"
        return None, (problem, "Do the work in a handler")
    if finished.returncode == -signal.SIGXCPU:
        problem = f"importing the module takes more than {LOADING_SECONDS_MAX} s of CPU"
        return None, (problem, "Do the work in a handler")
    try:
        return json.loads(finished.stdout), ("", "")
    except ValueError:
        problem = f"importing the module ended its process (status {finished.returncode})"
        return None, (problem, "Import it with python to see why")


def _finding(
    worker: WorkerConfig, root: Path, rule: str, problem: str, cure: str, level: Any = "error"
) -> Finding:
    return Finding(relative(worker.main, root), 1, level, rule, problem, cure)


class _Watch:
    """Collects findings while the module is imported: refused operations and the exception."""

    def __init__(self, main: Path) -> None:
        self.main = main
        self.active = True
        self.findings: list[dict[str, Any]] = []

    def audit(self, event: str, _: tuple[Any, ...]) -> None:
        what = _EVENTS.get(event) if self.active else None
        if what is not None:
            problem = f"importing the module opens {what}, which the platform has not"
            self.report("loading", problem, "Take it out", traceback.extract_stack())

    def failed(self, error: BaseException) -> None:
        if isinstance(error, SyntaxError):
            return  # check_modules reports it
        text = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
        problem = f"importing the module raises {text}"
        frames = traceback.extract_tb(error.__traceback__)
        if isinstance(error, ImportError) and NOT_HERE in text:
            cure = "Test this Worker on Cloudflare"
            self.report("loading", problem, cure, frames, "warning")
            return
        cure = "Call it in a handler" if REFUSAL in text else "Correct it"
        self.report("loading", problem, cure, frames)

    def drew(self, packages: set[str], variable: str) -> None:
        for package in sorted(packages):
            problem = f"the package {package} draws random values while it is imported, which"
            problem += " Cloudflare refuses unless it knows the package"
            cure = f'Import it in a handler, or set os.environ["{variable}"] = "1" before'
            self.report("loading", problem, cure, traceback.StackSummary(), "warning")

    def report(
        self,
        rule: str,
        problem: str,
        cure: str,
        frames: traceback.StackSummary,
        level: Level = "error",
    ) -> None:
        own = [frame for frame in frames if frame.filename.startswith(str(self.main.parent))]
        file, line = (own[-1].filename, own[-1].lineno or 1) if own else (str(self.main), 1)
        self.findings.append(
            {
                "file": file,
                "line": line,
                "level": level,
                "rule": rule,
                "problem": problem,
                "cure": cure,
            }
        )


def _user_seconds() -> float:
    """CPU time of this process's own code, without the kernel's work, such as freeing memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def _main() -> None:
    main = Path(sys.argv[1])
    out, sys.stdout = sys.stdout, sys.stderr
    env = json.loads(sys.stdin.read())
    reset_import_path()
    from workers._bindings import Env
    from workers._runtime import current_env

    from edgesim.isolates.guest import clock_and_random

    current_env.set(Env([tuple(each) for each in env]))
    watch = _Watch(main)
    clock_and_random.install()
    sys.addaudithook(watch.audit)
    resource.setrlimit(
        resource.RLIMIT_CPU, (int(sys.argv[2]), resource.getrlimit(resource.RLIMIT_CPU)[1])
    )
    loaded = False
    started = _user_seconds()
    try:
        with clock_and_random.global_scope() as importing:
            add_own_modules(main)
            load(main)
        loaded = True
        watch.drew(importing.drawn_by, clock_and_random.ALLOW)
    except BaseException as error:  # noqa: BLE001 (any exception of an import is a finding)
        watch.failed(error)
    seconds = _user_seconds() - started
    watch.active = False
    report = {"findings": watch.findings, "loaded": loaded, "seconds": seconds}
    print(json.dumps(report), file=out, flush=True)
    os._exit(0)  # a thread that the module started must not delay the exit


if __name__ == "__main__":
    _main()
