"""Interface between the SDK and the isolate that it runs in: the current invocation.

The isolate sets ``current`` before a handler runs; tasks that the handler starts inherit it.  The
SDK never imports edgesim and uses only this interface.
"""

from __future__ import annotations

from collections.abc import Awaitable
from contextvars import ContextVar
from random import Random
from typing import Any, Protocol


class Invocation(Protocol):
    """One run of a handler; implemented by the isolate."""

    seeded: bool
    open_lines: dict[str, str]
    """Printed text without a line end yet, by log level."""
    data_points: int
    """Number of its data points for Analytics Engine."""

    @property
    def random(self) -> Random:
        """The invocation's random number generator."""

    def now(self) -> float:
        """Return the platform's time in Unix seconds."""

    def steady(self) -> float:
        """Return the platform's monotonic time in seconds."""

    def sleep(self, seconds: float) -> None:
        """Block for ``seconds``."""

    def call(
        self, binding: str, method: str, args: list[Any], options: dict[str, Any] | None = None
    ) -> Awaitable[Any]:
        """Call a method of a binding; its exception is raised here."""

    def post(self, binding: str, method: str, args: list[Any]) -> None:
        """Call a method of a binding at once, without its result; the invocation waits for it."""

    def log(self, level: str, message: list[Any]) -> None:
        """Record one console call."""

    def wait_until(self, work: Awaitable[Any]) -> None:
        """Keep the invocation running until ``work`` is done (at most 30 s past the response)."""


GLOBAL_SCOPE = (
    "Disallowed operation called within global scope. Asynchronous I/O (ex: fetch() or "
    "connect()), setting a timeout, and generating random values are not allowed within "
    "global scope. To fix this error, perform this operation within a handler."
)

current: ContextVar[Invocation] = ContextVar("invocation")
current_env: ContextVar[Any] = ContextVar("env")


def invocation() -> Invocation:
    """Return the running invocation; RuntimeError with the platform's text in global scope."""
    try:
        return current.get()
    except LookupError:
        raise RuntimeError(GLOBAL_SCOPE) from None
