"""What every binding is: something on ``env`` that is asked over the wire."""

from __future__ import annotations

from typing import Any

from workers._convert import to_wire
from workers._runtime import invocation


class Binding:
    """Anything on env that is asked over the wire."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def _ask(self, method: str, *args: Any, **options: Any) -> Any:
        return await invocation().call(
            self._name, method, [to_wire(arg) for arg in args], to_wire(options)
        )


def merged_options(positional: tuple[Any, ...], keywords: dict[str, Any]) -> dict[str, Any]:
    """Options given as one trailing dict, as keywords, or both."""
    merged: dict[str, Any] = {}
    for value in positional:
        if value is not None:
            merged.update(value)
    return merged | keywords
