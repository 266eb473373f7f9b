"""Data points that Worker code passes, converted and refused as workerd does.

An isolate has refused values of the wrong type already, since their errors are thrown at once; the
limits are checked here only, in workerd's order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from edgesim.analytics.dataset import DataPoint
from edgesim.analytics.table import BLOBS_MAX, DOUBLES_MAX
from edgesim.errors import PlatformError
from edgesim.runtime.r2_values import text, wrong

POINTS_MAX = 250
"""Maximum data points of one invocation."""
TOO_MANY = "Analytics Engine write limit exceeded."
INDEXES_MAX = 1
INDEX_BYTES_MAX = 96
BLOBS_BYTES_MAX = 16_000

_STRUCT = "AnalyticsEngineEvent"
_DECIMAL = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|Infinity)", re.ASCII)
_INTEGER = re.compile(r"0(?:[xX][0-9a-fA-F]+|[oO][0-7]+|[bB][01]+)")


def data_point(event: Any) -> DataPoint:
    """The data point; PlatformError if it breaks a limit."""
    fields = event if isinstance(event, Mapping) else {}
    indexes, doubles, blobs = (_items(fields, name) for name in ("indexes", "doubles", "blobs"))
    _check_count(indexes, INDEXES_MAX, "indexes")
    index = _blob(indexes[0]) if indexes else b""
    if len(index) > INDEX_BYTES_MAX:
        raise _refusal(f"Size of indexes[0] exceeds {INDEX_BYTES_MAX} bytes).")
    _check_count(doubles, DOUBLES_MAX, "doubles")
    numbers = [_double(each) for each in doubles]
    _check_count(blobs, BLOBS_MAX, "blobs")
    kept = [_blob(each) for each in blobs]
    if sum(map(len, kept)) > BLOBS_BYTES_MAX:
        raise _refusal(f"Cumulative size of blobs exceeds {BLOBS_BYTES_MAX} bytes).")
    return DataPoint(_text(index), [_text(each) for each in kept], numbers)


def _items(fields: Mapping[str, Any], name: str) -> list[Any]:
    if name not in fields:
        return []
    items = fields[name]
    if not isinstance(items, list):
        raise wrong(name, _STRUCT, "Array")
    return items


def _check_count(items: list[Any], most: int, name: str) -> None:
    if len(items) > most:
        raise _refusal(f"Maximum of {most} {name} supported.")


def _refusal(problem: str) -> PlatformError:
    return PlatformError(f"writeDataPoint(): {problem}", "TypeError")


def _blob(value: Any) -> bytes:
    """A blob's or an index's bytes; null is an empty one."""
    if value is None:
        return b""
    return value if isinstance(value, bytes) else _string(value).encode("utf-8", "surrogatepass")


def _text(value: bytes) -> str:
    """The rows are JSON, so other bytes than UTF-8 are replaced."""
    return value.decode("utf-8", "replace")


def _string(value: Any) -> str:
    """Convert a value to text like JavaScript's String()."""
    if isinstance(value, list):
        return ",".join("" if each is None else _string(each) for each in value)
    if isinstance(value, bytes):
        return ",".join(map(str, value))
    if isinstance(value, datetime):
        moment = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return moment.strftime("%a %b %d %Y %H:%M:%S GMT+0000 (Coordinated Universal Time)")
    return text(value)


def _double(value: Any) -> float:
    """Convert a value to a number like JavaScript's Number()."""
    if value is None:
        return 0.0
    if isinstance(value, bool | int | float):
        return float(value)
    if isinstance(value, datetime):
        moment = value.replace(tzinfo=UTC) if value.tzinfo is None else value
        return moment.timestamp() * 1000
    if isinstance(value, Mapping):
        return float("nan")
    digits = _string(value).strip()
    if _INTEGER.fullmatch(digits):
        return float(int(digits, 0))
    if _DECIMAL.fullmatch(digits):
        return float(digits)
    return float("nan") if digits else 0.0
