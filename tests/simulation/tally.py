"""Count how often each fault took effect over many seeds: one that never does proves nothing."""

from collections import Counter
from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from edgesim.replay.runner import ReplayReport

SEEDS_TO_JUDGE = 300
RULES = {
    *("error", "latency", "outage", "lost-answer", "duplicate", "reorder", "crash"),
    *("kill", "kill after N steps", "kill in recovery"),
    *("power-cut", "power-cut after N steps", "power-cut in recovery"),
    *("failed-fsync", "lying-fsync", "full", "bit-flip", "jump"),
}
"""Faults that come from a rule; also "zygote-death" where isolates are processes."""
EFFECTS = {
    *("name lost", "removal lost", "write torn or lost", "promise broken"),
    *("object unreadable", "records of a log lost"),
}
"""Effects of power cuts and damage."""


class Tally:
    """Sums of the reports."""

    def __init__(self) -> None:
        self._times: Counter[str] = Counter()
        self._seeds: Counter[str] = Counter()

    def add(self, report: ReplayReport, damage: Counter[str]) -> None:
        """Add one seed's report; ``damage`` counts its permanent losses."""
        times: Counter[str] = Counter()
        for rule, count in report.fault_counts.items():
            times[kind_of(rule)] += count
        times += Counter(report.disk) + damage
        self._times += times
        self._seeds.update(times.keys())

    def lines(self) -> Iterator[str]:
        """Return the lines of a table."""
        for name in sorted(RULES | EFFECTS | self._times.keys()):
            yield f"  {name:26}{self._seeds[name]:6} seeds{self._times[name]:9} times"

    def missing(self, seeds: int, effects: AbstractSet[str], *, zygotes: bool) -> set[str]:
        """Return those of ``effects`` that should have been seen by now and have not."""
        if seeds < SEEDS_TO_JUDGE:
            return set()
        wanted = effects | ({"zygote-death"} if zygotes else set())
        return {name for name in wanted if not self._times[name]}


def kind_of(rule: str) -> str:
    """Return the kind of a fault rule; a kill's kind depends on when it comes."""
    kind = rule.split()[1]
    if "recovery-steps" in rule:
        return f"{kind} in recovery"
    return f"{kind} after N steps" if " after " in rule else kind
