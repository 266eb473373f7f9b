"""Reduce a failing replay to a small one that fails in the same way.

Delta debugging (Zeller): remove ever smaller parts, first of the fault rules, then of the lines,
and keep reductions that still fail. Each try is a separate replay with empty state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from edgesim.errors import UsageError
from edgesim.faults.language import FaultRule
from edgesim.replay.runner import ReplayReport

TRIES_MAX = 300

Item = TypeVar("Item")
Run = Callable[[Path, Sequence[FaultRule]], ReplayReport]
"""Replays a fixture with these rules, from empty state."""


class Shrunk(msgspec.Struct):
    """The reduced case, and the number of replays it took."""

    lines: list[bytes]
    rules: list[FaultRule]
    report: ReplayReport
    tries: int


def shrink(
    lines: Sequence[bytes],
    rules: Sequence[FaultRule],
    folder: Path,
    run: Run,
    progress: Callable[[int, int, int], None],
) -> Shrunk:
    """Reduce lines and rules to a minimal case that fails in one of the original ways.

    ``folder`` receives the fixture of each try; ``progress`` is called with the number of tries,
    lines and rules. UsageError if the original does not fail.
    """
    fixture = folder / "tried.ndjson"
    tries = 0
    smallest: ReplayReport | None = None

    def report_of(some_lines: Sequence[bytes], some_rules: Sequence[FaultRule]) -> ReplayReport:
        nonlocal tries
        tries += 1
        fixture.write_bytes(b"".join(line + b"\n" for line in some_lines))
        return run(fixture, some_rules)

    wanted = _signature(report_of(lines, rules))
    if not wanted:
        raise UsageError("--shrink: the replay does not fail, so there is nothing to shrink")

    def fails(some_lines: Sequence[bytes], some_rules: Sequence[FaultRule]) -> bool:
        nonlocal smallest
        if not some_lines or tries >= TRIES_MAX:
            return False
        progress(tries, len(some_lines), len(some_rules))
        report = report_of(some_lines, some_rules)
        if not wanted & _signature(report):
            return False
        smallest = report
        return True

    kept_rules = _minimal(list(rules), lambda some: fails(lines, some))
    kept_lines = _minimal(list(lines), lambda some: fails(some, kept_rules))
    kept_rules = _minimal(kept_rules, lambda some: fails(kept_lines, some))
    report = smallest if smallest is not None else report_of(kept_lines, kept_rules)
    return Shrunk(kept_lines, kept_rules, report, tries)


def _signature(report: ReplayReport) -> set[str]:
    """Names of the failed checks and expectations."""
    failures = {violation.checker for violation in report.violations}
    failures |= {mismatch.what for mismatch in report.mismatches}
    return failures | (set() if report.drained else {"not drained"})


def _minimal(items: list[Item], fails: Callable[[list[Item]], bool]) -> list[Item]:
    """A failing subset from which no single item can be removed."""
    parts = 2
    if items and fails([]):
        return []
    while len(items) >= 2:
        size = -(-len(items) // parts)
        chunks = [items[at : at + size] for at in range(0, len(items), size)]
        for index in range(len(chunks)):
            rest = [item for other, chunk in enumerate(chunks) if other != index for item in chunk]
            if fails(rest):
                items, parts = rest, max(parts - 1, 2)
                break
        else:
            if size == 1:
                break
            parts = min(parts * 2, len(items))
    return items
