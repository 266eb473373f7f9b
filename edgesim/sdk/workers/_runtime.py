"""What the SDK knows of the isolate it runs in: the current invocation and its way out.

The isolate sets ``current`` before a handler runs; tasks that the handler starts inherit it.  The
SDK never imports edgesim: all it has is this interface.
"""

from __future__ import annotations

from collections.abc import Awaitable
from contextvars import ContextVar
from random import Random
from typing import Any, Protocol


class Invocation(Protocol):
    """One run of a handler, as the SDK sees it."""

    seeded: bool
    open_lines: dict[str, str]
    """What was printed without a line's end yet, by level."""

    @property
    def random(self) -> Random:
        """The invocation's own source of randomness."""

    def now(self) -> float:
        """The platform's time, Unix seconds."""

    def steady(self) -> float:
        """The same on a clock that nobody sets."""

    def sleep(self, seconds: float) -> None:
        """Block for so long."""

    def call(
        self, binding: str, method: str, args: list[Any], options: dict[str, Any] | None = None
    ) -> Awaitable[Any]:
        """Ask the platform; raises what the binding throws."""

    def log(self, level: str, message: list[Any]) -> None:
        """One console call."""

    def wait_until(self, work: Awaitable[Any]) -> None:
        """Keep the invocation alive until ``work`` is done (at most 30 s past the response)."""


GLOBAL_SCOPE = (
    "Disallowed operation called within global scope. Asynchronous I/O (ex: fetch() or "
    "connect()), setting a timeout, and generating random values are not allowed within "
    "global scope. To fix this error, perform this operation within a handler."
)

current: ContextVar[Invocation] = ContextVar("invocation")
current_env: ContextVar[Any] = ContextVar("env")


def invocation() -> Invocation:
    """The running invocation; RuntimeError with the platform's text in global scope."""
    try:
        return current.get()
    except LookupError:
        raise RuntimeError(GLOBAL_SCOPE) from None
