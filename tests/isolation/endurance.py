"""Long run of honest requests by the thousand, with attackers among them; `make endure`.

At the end every honest request has been answered correctly, and the platform has leaked no process,
descriptor or memory.  If an attack ended the process of an honest request that had made a call, the
request fails, as documented, and its client retries it.
"""

import argparse
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

import anyio
import structlog

sys.path.insert(0, str(Path(__file__).parents[2]))

from edgesim.model import Limits
from tests.isolation.world import World, open_world

ATTACKERS = 0.05
CLIENTS = 12
CPU_MS = 200
ATTACKS = (
    "busy-loop",
    "busy-in-steps",
    "busy-after-response",
    "never-answers",
    "exit-in-wait-until",
    "memory-in-one-block",
    "memory-in-many",
    "recursion",
    "os-exit",
    "segfault",
    "kill-itself",
    "fork-bomb",
    "thread",
    "read-passwords",
    "tcp-socket",
    "environ",
    "library-function",
    "library-by-a-side-door",
    "logging-configured",
    "leftover-task",
    "loop-stopped",
    "closed-descriptors",
    "garbage",
    "frame-of-2-gb",
    "two-ends",
    "end-of-another",
    "wake-of-wrong-types",
    "log-flood-of-nothing",
    "stream-of-another",
)
TRIES_MAX = 20
TOLD = {"internalError", "exceededMemory"}
"""Failures that an honest request may have at the warm level, where all share one memory."""


class Report:
    """Results of a run."""

    def __init__(self, level: str) -> None:
        self.level = level
        self.right = 0
        self.wrong: list[str] = []
        self.told = 0
        self.outcomes: Counter[str] = Counter()
        self.seconds = 0.0
        self.early: dict[str, int] = {}
        self.late: dict[str, int] = {}
        self.left: set[int] = set()

    def __str__(self) -> str:
        grown = {name: self.late[name] - self.early[name] for name in self.late}
        return (
            f"{self.level}: {self.right} honest requests right, {len(self.wrong)} wrong, "
            f"{self.told} told of another's end and sent again; attackers: {dict(self.outcomes)}; "
            f"{self.seconds:.0f} s; grown since the first fifth: {grown}; "
            f"processes left: {len(self.left)}"
        )


async def endure(level: str, requests: int, seed: int = 1) -> Report:
    """Send that many requests to one Worker at the level and report the results."""
    report = Report(level)
    chance = random.Random(seed)
    before = descendants()
    descriptors = _descriptors()
    started = time.monotonic()
    async with open_world(level, limits=Limits(cpu_ms=CPU_MS)) as world:
        await _load(world, report, requests // 5, chance)
        report.early = _size()
        await _load(world, report, requests - requests // 5, chance)
        report.late = _size()
    report.seconds = time.monotonic() - started
    with anyio.move_on_after(5):
        while descendants() - before:  # noqa: ASYNC110 (no event for a grandchild's exit)
            await anyio.sleep(0.01)
    report.left = descendants() - before
    report.early["descriptors"] = descriptors
    report.late["descriptors"] = _descriptors()
    return report


async def _load(world: World, report: Report, requests: int, chance: random.Random) -> None:
    plan = [_draw(chance) for _ in range(requests)]

    async def client() -> None:
        while plan:
            kind, number = plan.pop()
            if kind == "attack":
                answer = await world.attack(ATTACKS[number % len(ATTACKS)])
                report.outcomes[answer.outcome] += 1
            else:
                await _honest(world, report, kind, number)
            world.requests.clear()

    async with anyio.create_task_group() as tasks:
        for _ in range(CLIENTS):
            tasks.start_soon(client)


def _draw(chance: random.Random) -> tuple[str, int]:
    if chance.random() < ATTACKERS:
        return "attack", chance.randrange(1 << 30)
    return chance.choice(["work", "work", "count"]), chance.randrange(1, 2000)


async def _honest(world: World, report: Report, kind: str, number: int) -> None:
    numbers = list(range(number))
    body = str(numbers).encode()
    expected = str(sum(numbers) if kind == "work" else len(body)).encode()
    for _ in range(TRIES_MAX):
        answer = await world.fetch(kind, body)
        if answer.outcome not in TOLD or world.level == "process":
            break
        report.told += 1
    if answer.outcome == "ok" and answer.body == expected:
        report.right += 1
    else:
        report.wrong.append(f"{kind}: {answer.done}")


def _size() -> dict[str, int]:
    status = Path("/proc/self/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return {"MB": int(resident.split()[1]) // 1024}


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def descendants() -> set[int]:
    """Return the PIDs of all descendants of this process."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found: set[int] = set()
    waiting = [os.getpid()]
    while waiting:
        born = children.get(waiting.pop(), [])
        found.update(born)
        waiting += born
    return found


def main() -> int:
    """Run each level; return 1 if an answer was wrong or a process was left, else 0."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--level", choices=["process", "warm"], action="append")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    failed = False
    for level in options.level or ["process", "warm"]:
        report = anyio.run(endure, level, options.requests, options.seed)
        print(report, flush=True)
        for line in report.wrong[:5]:
            print(" ", line)
        failed |= bool(report.wrong or report.left)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
