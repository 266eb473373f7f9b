"""Base class of all bindings on ``env``."""

from __future__ import annotations

from typing import Any

from workers._convert import to_wire
from workers._runtime import invocation


class Binding:
    """A binding whose methods are calls over the wire; ``name`` is its name on ``env``."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def _ask(self, method: str, *args: Any, **options: Any) -> Any:
        return await invocation().call(
            self._name, method, [to_wire(arg) for arg in args], to_wire(options)
        )


def merged_options(positional: tuple[Any, ...], keywords: dict[str, Any]) -> dict[str, Any]:
    """Merge options passed as trailing dicts with keywords, which take precedence."""
    merged: dict[str, Any] = {}
    for value in positional:
        if value is not None:
            merged.update(value)
    return merged | keywords
