"""Single values that Worker code passes, converted or refused as on the platform."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from edgesim.errors import PlatformError


def given_fields(value: Any, struct: str) -> dict[str, Any]:
    """The fields with a value; undefined and null both arrive as None and mean the default."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise PlatformError(f"The provided value is not of type '{struct}'.", "TypeError")
    return {name: field for name, field in value.items() if field is not None}


def pairs(value: Any, field: str, struct: str) -> list[tuple[str, str]]:
    """The pairs of a ``Headers`` object, names in lower case."""
    try:
        return [(str(name).lower(), str(text)) for name, text in value]
    except (TypeError, ValueError):
        raise wrong(field, struct, "Object or Headers") from None


def number(value: Any, field: str, struct: str) -> float:
    """A finite number; PlatformError for any other value."""
    if isinstance(value, int | float) and abs(value) < float("inf"):
        return value
    raise wrong(field, struct, "number")


def date(value: Any, field: str, struct: str) -> float | None:
    """Unix milliseconds, or None."""
    if value is None:
        return None
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return aware.timestamp() * 1000
    if isinstance(value, int | float) and abs(value) < float("inf"):
        return value
    raise wrong(field, struct, "date")


def optional_string(value: Any, field: str, struct: str) -> str | None:
    """Text or None; the platform does not convert other values to text here."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise wrong(field, struct, "string")
    return text(value)


def optional_text(value: Any) -> str | None:
    """Text, or None."""
    return None if value is None else text(value)


def text(value: Any) -> str:
    """Convert a value to text like JavaScript's String()."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int | float):
        return str(value)
    return "null" if value is None else "[object Object]"


def wrong(field: str, struct: str, kind: str) -> PlatformError:
    """The error for a field with a value of the wrong type."""
    return PlatformError(
        f"Incorrect type for the '{field}' field on '{struct}': the provided value is not of type "
        f"'{kind}'.",
        "TypeError",
    )
