"""The fault language: one rule per line (or between semicolons), ``#`` begins a comment.

    r2 error 5%                           each call fails with that chance, without any effect
    queues.send lost-answer 2%            the call succeeds, but the caller receives an error
    clickhouse latency 200ms..2s          each call takes that much longer
    clickhouse outage from 100s to 5m     every call fails in that time
    queues duplicate 3%                   an acknowledged message is delivered once more
    queues reorder 10%                    a message is held back, up to 30 s
    kv stale 20%                          a read returns what was stored up to 60 s ago
    insert crash 1%                       an isolate crashes during an invocation
    workers zygote-death 1%               the process that forks isolates is killed
    platform kill at 95s                  the platform is killed and restarts on the same stores
    platform power-cut at 95s             the same, and unflushed data may be lost
    platform kill after 40 steps          immediately after the 40th flush, commit or insert
    platform kill after 3 recovery-steps  immediately after the third one of the next start
    disk failed-fsync 5%                  a flush fails; the data to be flushed is lost
    disk lying-fsync 5%                   a flush succeeds without flushing
    disk full from 100s to 5m             a write stores a part and fails
    disk bit-flip at 95s                  one bit of one file changes
    clock jump -1h at 95s                 the wall clock is set; back only at the next start

A rule is a target, a kind, the kind's amount, and optionally when: ``from T``, ``to T``, ``at T``,
``after N steps``. Times count from the start of the replay, steps from ``from T``.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from edgesim.errors import UsageError, reason

_STORES = ("r2", "queues", "kv", "clickhouse")
KINDS: dict[str, tuple[str, ...]] = {
    "error": (*_STORES, "pipelines", "workers"),
    "latency": (*_STORES, "pipelines", "workers"),
    "outage": (*_STORES, "pipelines", "workers"),
    "lost-answer": (*_STORES, "pipelines"),
    "duplicate": ("queues",),
    "reorder": ("queues",),
    "stale": ("kv",),
    "crash": ("workers",),
    "zygote-death": ("workers",),
    "kill": ("platform",),
    "power-cut": ("platform",),
    "failed-fsync": ("disk",),
    "lying-fsync": ("disk",),
    "full": ("disk",),
    "bit-flip": ("disk",),
    "jump": ("clock",),
}
"""Fault kind -> groups of targets to which it applies."""

STOPS = ("kill", "power-cut")
_WITH_CHANCE = {
    *("error", "lost-answer", "duplicate", "reorder", "stale"),
    *("crash", "zygote-death", "failed-fsync", "lying-fsync"),
}
MOMENTS = {*STOPS, "bit-flip", "jump"}
_STEPS = ("steps", "recovery-steps")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)%")


class FaultRule(msgspec.Struct, frozen=True):
    """One rule: ``kind`` strikes ``target`` with ``chance`` from ``since`` to ``until``.

    ``latency`` is the minimum and maximum delay; all times are seconds, from the start. ``steps``:
    strike after that many durable steps, counted from the next restart if ``recovery``. ``jump``:
    seconds by which the clock is set forward.
    """

    text: str
    target: str
    kind: str
    chance: float = 1.0
    latency: tuple[float, float] = (0.0, 0.0)
    since: float = 0.0
    until: float = math.inf
    steps: int = 0
    recovery: bool = False
    jump: float = 0.0


def read(spec: str, targets: Mapping[str, Collection[str]]) -> list[FaultRule]:
    """Parse the rules of a file, or of the text itself if there is no such file.

    ``targets`` maps target groups to the names that rules may use. UsageError names the line.
    """
    path = Path(spec)
    named = path.is_file() if len(spec) < 256 and "\n" not in spec else False
    if named:
        try:
            text, where = path.read_text("utf-8-sig"), f"{path}: line "
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: cannot be read as fault rules: {reason(error)}") from error
    else:
        text, where = spec.replace(";", "\n"), "--faults: rule "
    return parse(text, where, targets)


def parse(text: str, where: str, targets: Mapping[str, Collection[str]]) -> list[FaultRule]:
    """Parse rules, one a line; UsageError names the line, after ``where``."""
    rules = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if words:
            try:
                rules.append(_rule(words, targets))
            except ValueError as error:
                raise UsageError(f"{where}{number}: {' '.join(words)!r}: {error}") from error
    return rules


def _rule(words: list[str], targets: Mapping[str, Collection[str]]) -> FaultRule:
    if len(words) < 2:
        raise ValueError("a rule is TARGET KIND [AMOUNT] [from T] [to T], as in `r2 error 5%`")
    target, kind, rest = words[0], words[1], words[2:]
    _check_target(target, kind, targets)
    chance, latency, seen_amount = 1.0, (0.0, 0.0), False
    steps, recovery, jump = 0, False, 0.0
    times: dict[str, float] = {}
    while rest:
        word = rest.pop(0)
        if word in {"from", "to", "at"}:
            if not rest:
                raise ValueError(f"a time must follow `{word}`, as in `{word} 90s`")
            times[word] = _seconds(rest.pop(0))
        elif word == "after" and kind in STOPS:
            steps, recovery = _steps(rest)
        elif kind == "jump" and jump == 0.0:
            jump = _seconds(word.lstrip("-")) * (-1 if word.startswith("-") else 1)
        elif percent := _PERCENT.fullmatch(word):
            chance, seen_amount = float(percent[1]) / 100, True
        elif kind == "latency" and latency == (0.0, 0.0):
            first, _, last = word.partition("..")
            latency = (_seconds(first), _seconds(last or first))
        else:
            raise ValueError(f"{word!r} is not an amount, such as 5%, 200ms or 1s..2s")
    if not 0 <= chance <= 1:
        raise ValueError("a chance is 0% to 100%")
    if kind in _WITH_CHANCE and not seen_amount:
        raise ValueError(f"{kind} needs a chance, as in `{target} {kind} 5%`")
    if kind == "latency" and not 0 < latency[1] >= latency[0]:
        raise ValueError("latency needs a duration, as in `latency 200ms` or `latency 200ms..2s`")
    if kind == "jump" and jump == 0:
        raise ValueError("jump needs a duration, as in `clock jump -1h at 95s`")
    _check_moment(kind, times, steps)
    since = times.get("at", times.get("from", 0.0))
    until = times.get("to", math.inf)
    if until <= since:
        raise ValueError("it ends before it begins")
    return FaultRule(
        " ".join(words), target, kind, chance, latency, since, until, steps, recovery, jump
    )


def _steps(rest: list[str]) -> tuple[int, bool]:
    if len(rest) < 2 or not rest[0].isdecimal() or int(rest[0]) < 1 or rest[1] not in _STEPS:
        raise ValueError("`after` needs a number of steps, as in `after 40 steps`")
    number, unit = rest.pop(0), rest.pop(0)
    return int(number), unit == "recovery-steps"


def _check_moment(kind: str, times: Mapping[str, float], steps: int) -> None:
    if kind not in MOMENTS:
        if "at" in times:
            raise ValueError(f"`at` is for {', '.join(sorted(MOMENTS))}; write `from T to T`")
    elif ("at" in times) == bool(steps):
        also = " or `after N steps`" if kind in STOPS else ""
        raise ValueError(f"{kind} needs `at T`{also}")


def _check_target(target: str, kind: str, targets: Mapping[str, Collection[str]]) -> None:
    if kind not in KINDS:
        raise ValueError(f"there is no fault {kind!r}{_hint(kind, KINDS)}")
    known = [name for group in targets.values() for name in group]
    if target not in known:
        raise ValueError(f"there is no target {target!r}{_hint(target, known)}")
    if not any(target in targets.get(group, ()) for group in KINDS[kind]):
        raise ValueError(f"{kind} is a fault of {', '.join(KINDS[kind])}, not of {target}")


def _hint(word: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


def _seconds(word: str) -> float:
    found = _DURATION.fullmatch(word)
    if found is None:
        raise ValueError(f"{word!r} is not a time, like 200ms, 90s, 5m or 1h")
    return float(found[1]) * _UNITS[found[2]]
