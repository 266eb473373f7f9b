"""Traces that wait for a Tail Worker count at least the memory that their logs take."""

import sys
from typing import Any

import pytest

from edgesim.model import TraceItem, TraceLog
from edgesim.runtime.tail import bytes_of


def memory_of(value: Any) -> int:
    """Bytes of a JSON value and of all that it contains, each element counted once."""
    size = sys.getsizeof(value)
    if isinstance(value, dict):
        return size + sum(memory_of(part) for pair in value.items() for part in pair)
    return size + (sum(map(memory_of, value)) if isinstance(value, list) else 0)


@pytest.mark.parametrize(
    "value",
    [
        [[] for _ in range(10_000)],
        [{} for _ in range(10_000)],
        [float(number) for number in range(10_000)],
        {str(number): [number] for number in range(10_000)},
        "x" * 10_000,
    ],
    ids=["lists", "objects", "numbers", "names", "text"],
)
def test_values_of_logs_are_counted(value):
    """Lists, objects and numbers count, not texts alone."""
    empty = TraceItem("w", None, 0.0, "ok")
    item = TraceItem("w", None, 0.0, "ok", logs=[TraceLog(0.0, "log", [value])])
    assert bytes_of(item) - bytes_of(empty) >= memory_of(value)
