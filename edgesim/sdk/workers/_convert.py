"""Values on their way to a binding, by the rules of the platform's own SDK.

dict, list, str, bool, float, int, None, bytes, memoryview, set, datetime and SDK objects cross;
tuple, bytearray, awaitables and anything unknown is a TypeError here as it is there.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

_PLAIN = (str, bool, float, bytes, type(None))


def to_wire(value: Any) -> Any:
    """A copy of ``value`` that can cross; TypeError names the type that cannot."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 64:
            raise TypeError("An int beyond 64 bits cannot be sent over RPC.")
        return int(value)
    if isinstance(value, dict):
        return {str(key): to_wire(item) for key, item in value.items()}
    if isinstance(value, list | set | frozenset):
        return [to_wire(item) for item in value]
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, datetime):
        # The platform's Date has no zone: a naive datetime is UTC.
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    wire = getattr(value, "_to_wire", None)
    if wire is not None:
        return wire()
    raise TypeError(f"{type(value).__name__} cannot be sent over RPC.")


def from_wire(value: Any) -> Any:
    """An answer as the SDK shows it: JsDict, naive datetime (UTC), memoryview."""
    if isinstance(value, dict):
        return JsDict({key: from_wire(item) for key, item in value.items()})
    if isinstance(value, list):
        return [from_wire(item) for item in value]
    if isinstance(value, bytes):
        return memoryview(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None)
    return value


def from_ms(timestamp_ms: float) -> datetime:
    """A JavaScript Date as the SDK gives it: naive, UTC."""
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).replace(tzinfo=None)


class JsDict(dict[str, Any]):
    """A JavaScript object as a dict whose keys are attributes too (where dict has no such name)."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None
