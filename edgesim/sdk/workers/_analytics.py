"""Analytics Engine binding of worker code.

Values of the wrong type are refused at once, like in workerd; the platform's side checks limits.
"""

from __future__ import annotations

from typing import Any

from pyodide.ffi import SAFE_INTEGER_MAX, JsException

from workers._binding import Binding, merged_options
from workers._convert import to_wire
from workers._runtime import invocation

POINTS_MAX = 250
_FIELDS = ("indexes", "doubles", "blobs")


class AnalyticsEngine(Binding):
    """Binding to a dataset."""

    def writeDataPoint(self, *arguments: Any, **keywords: Any) -> None:
        """Record {"indexes", "doubles", "blobs"}; returns at once, the platform writes it later."""
        event = to_wire(arguments[0] if arguments else None)
        if keywords and (event is None or isinstance(event, dict)):
            event = merged_options((event,), to_wire(keywords))
        point = _checked(event)
        running = invocation()
        running.data_points += 1
        if running.data_points > POINTS_MAX:
            raise JsException("Error", "Analytics Engine write limit exceeded.")
        running.post(self._name, "writeDataPoint", [point])


def _checked(event: Any) -> dict[str, Any]:
    if isinstance(event, str | bool | int | float):
        raise JsException(
            "TypeError",
            "Failed to execute 'writeDataPoint' on 'AnalyticsEngine': parameter 1 is not of type "
            "'AnalyticsEngineEvent'.",
        )
    if not isinstance(event, dict):  # nothing, or an object without these fields
        return {}
    point = {name: event[name] for name in _FIELDS if name in event}
    for name, items in point.items():
        if not isinstance(items, list):
            raise JsException(
                "TypeError",
                f"Incorrect type for the '{name}' field on 'AnalyticsEngineEvent': the provided "
                "value is not of type 'Array'.",
            )
        if name == "doubles":
            _refuse_big(items)
        else:
            point[name] = [_sendable(item) for item in items]
    return point


def _refuse_big(numbers: list[Any]) -> None:
    for number in numbers:
        if isinstance(number, int) and abs(number) >= SAFE_INTEGER_MAX:
            raise JsException("TypeError", "Cannot convert a BigInt value to a number")


def _sendable(item: Any) -> Any:
    """Text with half a surrogate pair is no UTF-8: it crosses as the bytes that workerd stores."""
    if isinstance(item, str) and not item.isascii():
        return item.encode("utf-8", "surrogatepass")
    return item
