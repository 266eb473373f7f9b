"""Analytics Engine binding: takes a Worker's data points for one dataset."""

from __future__ import annotations

from typing import Any

from edgesim.analytics.dataset import Dataset
from edgesim.clock import Clock
from edgesim.errors import PlatformError
from edgesim.isolates.protocol.wire import Failure
from edgesim.runtime.bindings import no_method
from edgesim.runtime.data_point import POINTS_MAX, TOO_MANY, data_point
from edgesim.runtime.invocation import Invocation


class AnalyticsBinding:
    """Binding to one dataset."""

    counts_as_connection = False
    counts_as_subrequest = False

    def __init__(self, dataset: Dataset, clock: Clock) -> None:
        self._dataset = dataset
        self._clock = clock

    async def call(
        self, method: str, args: list[Any], options: dict[str, Any], invocation: Invocation
    ) -> Any:
        """Keep a data point.

        As in workerd, one that breaks a limit is not recorded, and its error is in the trace only.
        """
        if method != "writeDataPoint":
            raise no_method("AnalyticsEngine", method)
        invocation.data_points += 1
        if invocation.data_points > POINTS_MAX:
            raise PlatformError(TOO_MANY)
        try:
            point = data_point(args[0] if args else None)
        except PlatformError as error:
            self._dataset.counts.refused += 1
            failure = Failure(error.name, error.message)
            invocation.trace.exception(failure, self._clock.now_ms())
            return
        await self._dataset.write(point)
