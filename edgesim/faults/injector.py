"""Decides when faults strike: seeded, counted, and suspended while outcomes are checked."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import anyio
import msgspec

from edgesim.clock import Clock
from edgesim.errors import EdgesimError, RunError
from edgesim.faults.language import STOPS, FaultRule

FIRED_MAX = 10_000
"""Maximum individual faults kept for the report; the rest are only counted."""

_Result = TypeVar("_Result")


class KilledError(EdgesimError):
    """The platform run that made this call was killed; its operations have no effect."""


class Fired(msgspec.Struct, frozen=True):
    """A fault that struck: seconds from the start, the rule's text, and the affected operation."""

    at: float
    fault: str
    where: str


class _Countdown(msgspec.Struct):
    """A rule that stops the platform after ``left`` more durable steps."""

    rule: FaultRule
    left: int
    begun: bool


class Life:
    """One run of the platform, from its start to its shutdown or kill."""

    def __init__(self) -> None:
        self.killed = False

    def check(self) -> None:
        """Raise KilledError after a kill."""
        if self.killed:
            raise KilledError("the platform was killed")


class Injector:
    """Decides for each call whether a fault strikes.

    ``fired`` has the first faults that struck, ``counts`` the number of times by rule.
    """

    def __init__(self, rules: Sequence[FaultRule], seed: int, clock: Clock) -> None:
        self.rules = list(rules)
        self.fired: list[Fired] = []
        self.counts: Counter[str] = Counter()
        self.seed = seed
        self._clock = clock
        self._start = clock.now()
        # One generator per rule, so that adding a rule does not change when the others strike.
        self._chances = [random.Random(f"{seed} {rule.text}") for rule in rules]
        self._calm = False
        self._countdowns: list[_Countdown] = []
        self._count_down(rules)
        self.stop: Callable[[FaultRule], None] = _cannot_stop
        """Stops the platform immediately, in the way of the rule (kill or power cut)."""

    def add(self, rules: Sequence[FaultRule]) -> list[FaultRule]:
        """Add rules whose times count from now; return them with times from the start."""
        elapsed = self._clock.now() - self._start
        added = []
        for rule in rules:
            later = msgspec.structs.replace(
                rule, since=rule.since + elapsed, until=rule.until + elapsed
            )
            self.rules.append(later)
            added.append(later)
            self._chances.append(random.Random(f"{self.seed} {rule.text}"))
        self._count_down(added)
        return added

    def remove(self, rule: FaultRule) -> None:
        """Remove a rule and its count; what it already delays or refuses is not changed."""
        at = self.rules.index(rule)
        del self.rules[at], self._chances[at]
        self._countdowns = [each for each in self._countdowns if each.rule != rule]
        del self.counts[rule.text]

    def _count_down(self, rules: Sequence[FaultRule]) -> None:
        self._countdowns += [
            _Countdown(rule, rule.steps, begun=not rule.recovery)
            for rule in rules
            if rule.kind in STOPS and rule.steps
        ]

    def step(self, where: str) -> None:
        """Count a durable step; KilledError if a rule stops the platform at this step."""
        now = self._clock.now() - self._start
        for each in self._countdowns:
            if not each.begun or now < each.rule.since:
                continue
            each.left -= 1
            if each.left == 0:
                self._countdowns.remove(each)
                self.note(each.rule, where)
                self.stop(each.rule)
                raise KilledError("the platform was killed")

    def restarted(self) -> None:
        """Start counting the recovery steps of a new platform run."""
        now = self._clock.now() - self._start
        for each in self._countdowns:
            each.begun = each.begun or now >= each.rule.since

    @contextmanager
    def calm(self) -> Iterator[None]:
        """Suspend faults within the block, for code that inspects the outcome."""
        before, self._calm = self._calm, True
        try:
            yield
        finally:
            self._calm = before

    def strikes(
        self, kind: str, targets: Collection[str], where: str
    ) -> tuple[FaultRule, random.Random] | None:
        """The first rule of a kind that strikes one of the targets now, and its generator."""
        if self._calm or not self.rules:
            return None
        now = self._clock.now() - self._start
        for rule, chance in zip(self.rules, self._chances, strict=True):
            if (
                rule.kind == kind
                and rule.target in targets
                and rule.since <= now < rule.until
                and (rule.chance >= 1 or chance.random() < rule.chance)
            ):
                self.note(rule, where)
                return rule, chance
        return None

    def chance_of(self, rule: FaultRule) -> random.Random:
        """Random generator of a rule."""
        return self._chances[self.rules.index(rule)]

    def note(self, rule: FaultRule, where: str) -> None:
        """Record a fault that struck."""
        self.counts[rule.text] += 1
        if len(self.fired) == FIRED_MAX:
            return
        self.fired.append(Fired(round(self._clock.now() - self._start, 6), rule.text, where))

    async def delay(self, targets: Collection[str], where: str) -> None:
        """Sleep for the duration of a latency rule that strikes."""
        if struck := self.strikes("latency", targets, where):
            rule, chance = struck
            await anyio.sleep(chance.uniform(*rule.latency))

    def refusal(self, targets: Collection[str], where: str) -> str | None:
        """The reason why the call fails without effect; None if no rule strikes."""
        for kind in ("outage", "error"):
            if struck := self.strikes(kind, targets, where):
                return f"fault: {struck[0].text}"
        return None

    def lost(self, targets: Collection[str], where: str) -> str | None:
        """The reason why a successful call's reply is lost; None if no rule strikes."""
        struck = self.strikes("lost-answer", targets, where)
        return f"fault: {struck[0].text}" if struck else None

    async def around(
        self,
        life: Life,
        targets: Collection[str],
        where: str,
        act: Callable[[], Awaitable[_Result]],
    ) -> _Result:
        """Call a store with the faults that may strike before and after; they raise RunError."""
        life.check()
        if not self.rules:
            return await act()
        await self.delay(targets, where)
        life.check()
        if (reason := self.refusal(targets, where)) is not None:
            raise RunError(reason)
        result = await act()
        if (reason := self.lost(targets, where)) is not None:
            raise RunError(reason)
        return result


def _cannot_stop(rule: FaultRule) -> None:
    raise RunError(f"no platform to stop: {rule.text}")
