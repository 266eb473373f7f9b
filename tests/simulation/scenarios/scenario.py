"""One project that seeds run on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgesim.replay.checkers import Checker

PROJECTS = Path(__file__).parents[1] / "projects"


@dataclass(frozen=True)
class Scenario:
    """A project with generators of traffic and faults.

    ``traffic`` returns the lines of a fixture for a seed.  ``faults`` returns the rules for a seed;
    its second argument is True if isolates are processes.
    """

    project: Path
    traffic: Callable[[int], list[str]]
    faults: Callable[[int, bool], list[str]]
    checkers: Mapping[str, Checker] = field(default_factory=dict)
    """Checkers besides those that every replay has."""
    effects: frozenset[str] = frozenset()
    """Kinds of faults that many seeds must have seen, as `tests.simulation.tally` names them."""
    says_damage: bool = False
    """The log must report each record that was lost."""
