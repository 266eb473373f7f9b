"""Operator actions on pipelines."""

from __future__ import annotations

from edgesim.errors import UsageError
from edgesim.simulator import Simulator


async def roll(simulator: Simulator, pipeline: str) -> dict[str, str]:
    """End the window of a pipeline now."""
    if pipeline not in simulator.primitives.pipelines:
        known = ", ".join(sorted(simulator.primitives.pipelines))
        raise UsageError(f"the project has no pipeline {pipeline!r}; known: {known}")
    await simulator.primitives.pipelines[pipeline].roll()
    return {"rolled": pipeline}
