"""When faults strike: seeded, counted, and none once it is calm."""

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
from edgesim.replay.faults.language import STOPS, Rule

FIRED_MAX = 10_000
"""So many are told one by one, with their times; of the others it is known how many there were."""

_Result = TypeVar("_Result")


class KilledError(EdgesimError):
    """The platform that did this was killed: nothing that it still does has an effect."""


class Fired(msgspec.Struct, frozen=True):
    """A fault that struck: seconds from the start, the rule as written, and what it struck."""

    at: float
    fault: str
    where: str


class _Countdown(msgspec.Struct):
    """A rule that stops the platform after so many more durable steps."""

    rule: Rule
    left: int
    begun: bool


class Life:
    """One life of the platform, from its start to its end or to a kill."""

    def __init__(self) -> None:
        self.killed = False

    def check(self) -> None:
        """KilledError once it is over."""
        if self.killed:
            raise KilledError("the platform was killed")


class Injector:
    """Decides for each call whether a fault strikes.

    ``fired`` has the first of those that did, ``counts`` how often each rule struck.
    """

    def __init__(self, rules: Sequence[Rule], seed: int, clock: Clock) -> None:
        self.rules = list(rules)
        self.fired: list[Fired] = []
        self.counts: Counter[str] = Counter()
        self.seed = seed
        self._clock = clock
        self._start = clock.now()
        # A generator for each rule: one more rule does not change when the others strike.
        self._chances = [random.Random(f"{seed} {rule.text}") for rule in rules]
        self._calm = False
        self._countdowns: list[_Countdown] = []
        self._count_down(rules)
        self.stop: Callable[[Rule], None] = _cannot_stop
        """Ends the platform at once, as the rule says."""

    def add(self, rules: Sequence[Rule]) -> list[Rule]:
        """More rules; their times count from now.  The rules with times from the start."""
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

    def _count_down(self, rules: Sequence[Rule]) -> None:
        self._countdowns += [
            _Countdown(rule, rule.steps, begun=not rule.recovery)
            for rule in rules
            if rule.kind in STOPS and rule.steps
        ]

    def step(self, where: str) -> None:
        """Something has become durable.  KilledError if a rule stops the platform just then."""
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
        """A new life begins: steps of its recovery count from now."""
        now = self._clock.now() - self._start
        for each in self._countdowns:
            each.begun = each.begun or now >= each.rule.since

    @contextmanager
    def calm(self) -> Iterator[None]:
        """No faults, for as long as it lasts: for those who look at the outcome."""
        before, self._calm = self._calm, True
        try:
            yield
        finally:
            self._calm = before

    def strikes(
        self, kind: str, targets: Collection[str], where: str
    ) -> tuple[Rule, random.Random] | None:
        """The first rule of that kind that strikes one of the targets now, and its generator."""
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

    def chance_of(self, rule: Rule) -> random.Random:
        """The generator of a rule."""
        return self._chances[self.rules.index(rule)]

    def note(self, rule: Rule, where: str) -> None:
        """Keep a fault that struck."""
        self.counts[rule.text] += 1
        if len(self.fired) == FIRED_MAX:
            return
        self.fired.append(Fired(round(self._clock.now() - self._start, 6), rule.text, where))

    async def delay(self, targets: Collection[str], where: str) -> None:
        """Let time pass, if a rule says so."""
        if struck := self.strikes("latency", targets, where):
            rule, chance = struck
            await anyio.sleep(chance.uniform(*rule.latency))

    def refusal(self, targets: Collection[str], where: str) -> str | None:
        """Why the call does not happen, if a rule says so."""
        for kind in ("outage", "error"):
            if struck := self.strikes(kind, targets, where):
                return f"fault: {struck[0].text}"
        return None

    def lost(self, targets: Collection[str], where: str) -> str | None:
        """Why the caller does not hear that the call happened, if a rule says so."""
        struck = self.strikes("lost-answer", targets, where)
        return f"fault: {struck[0].text}" if struck else None

    async def around(
        self,
        life: Life,
        targets: Collection[str],
        where: str,
        act: Callable[[], Awaitable[_Result]],
    ) -> _Result:
        """A call to a store, with what may go wrong before it and after it, as RunError."""
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


def _cannot_stop(rule: Rule) -> None:
    raise RunError(f"nothing here can be stopped: {rule.text}")
