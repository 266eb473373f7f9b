"""The projects that seeds run on, each with its traffic, its faults and its own checkers."""

from tests.simulation.scenarios import events, streams, tables
from tests.simulation.scenarios.scenario import Scenario

SCENARIOS: dict[str, Scenario] = {
    "events": events.SCENARIO,
    "streams": streams.SCENARIO,
    "tables": tables.SCENARIO,
}

__all__ = ["SCENARIOS", "Scenario"]
