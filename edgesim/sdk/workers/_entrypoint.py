"""WorkerEntrypoint, its context, and the argument of queue handlers."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from typing import Any

from pyodide.ffi import JsException

from workers._convert import from_ms, from_wire
from workers._runtime import invocation


class Context:
    """``self.ctx``: controls the lifetime of the invocation."""

    def waitUntil(self, work: Awaitable[Any]) -> None:
        """Continue ``work`` after the response, for at most 30 s."""
        invocation().wait_until(work)

    def passThroughOnException(self) -> None:
        """Do nothing: a local Worker has no origin server to pass the request to."""


class WorkerEntrypoint:
    """Base of a Worker's ``Default`` class; a new instance for every invocation."""

    ctx: Any
    env: Any

    def __init__(self, ctx: Any, env: Any) -> None:
        self.ctx = ctx
        self.env = env

    def __init_subclass__(cls, **_kwargs: Any) -> None:
        """Ignore class keywords, as on the platform."""


def wait_until(work: Awaitable[Any]) -> None:
    """Continue ``work`` after the response, like ``ctx.waitUntil``."""
    invocation().wait_until(work)


class _Wrapped:
    """Base of objects that the SDK wraps: attributes, also by ``[]``; no length, no iteration."""

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def __iter__(self) -> Any:
        raise TypeError(f"'{type(self).__name__}' object is not iterable")

    def __len__(self) -> int:
        raise TypeError(f"'{type(self).__name__}' object has no len()")

    def __bool__(self) -> bool:
        return True


class Message(_Wrapped):
    """One message of a batch.

    Of ack, retry, and ackAll or retryAll on its batch, the first call wins; a later opposite call
    only logs a warning.
    """

    def __init__(self, wire: dict[str, Any], decisions: dict[str, Any]) -> None:
        self._decisions = decisions
        self.id: str = wire["id"]
        self.attempts: int = wire["attempts"]
        self.timestamp = from_ms(wire["timestamp"])
        self.body: Any = from_wire(wire["body"])

    def ack(self) -> None:
        """Acknowledge the message, whatever happens to the rest of the batch."""
        self._decide("ack", None)

    def retry(
        self, options: dict[str, Any] | None = None, *, delaySeconds: float | None = None
    ) -> None:
        """Deliver the message again after ``delaySeconds`` (0 to 86,400)."""
        self._decide("retry", _delay(options, delaySeconds))

    def _decide(self, decision: str, delay: float | None) -> None:
        made: dict[str, Any] = self._decisions["messages"]
        whole = self._decisions["all"]
        if self.id not in made and whole is None:
            made[self.id] = (decision, delay)
        elif (whole or made[self.id][0]) != decision:
            earlier = f"{whole}All" if whole else made[self.id][0]
            warning = (
                f"Received a call to {decision}() on message {self.id} after {earlier}() was "
                f"already called. Calling {decision}() on a message after calling {earlier}() has "
                "no effect."
            )
            invocation().log("warn", [warning])


class MessageBatch(_Wrapped):
    """The batch that a queue handler receives."""

    def __init__(self, wire: dict[str, Any]) -> None:
        # Shared with the messages, which may write to it until waitUntil work ends; the result.
        self._decisions: dict[str, Any] = {"messages": {}, "all": None, "delaySeconds": None}
        self.queue: str = wire["queue"]
        self.messages = [Message(each, self._decisions) for each in wire["messages"]]
        self.metadata: Any = from_wire(wire.get("metadata", {}))

    def ackAll(self) -> None:
        """Acknowledge every message that has no decision yet."""
        self._decide("ack", None)

    def retryAll(
        self, options: dict[str, Any] | None = None, *, delaySeconds: float | None = None
    ) -> None:
        """Retry every message that has no decision yet, after ``delaySeconds``."""
        self._decide("retry", _delay(options, delaySeconds))

    def _decide(self, decision: str, delay: float | None) -> None:
        earlier = self._decisions["all"]
        if earlier is None:
            self._decisions |= {"all": decision, "delaySeconds": delay}
        elif earlier != decision:
            warning = (
                f"Received a call to {decision}All() after {earlier}All() was already called. "
                f"Calling {decision}All() after calling {earlier}All() has no effect."
            )
            invocation().log("warn", [warning])

    def _result(self) -> dict[str, Any]:
        """Return the decisions per message and for the rest ("ack", "retry", None); not a copy."""
        return self._decisions


def _delay(options: Any, keyword: float | None) -> float | None:
    if options is not None and not isinstance(options, dict):
        raise JsException(
            "TypeError",
            "retry takes delaySeconds=... or {'delaySeconds': ...}, "
            f"not {json.dumps(options, default=str)}",
        )
    delay = keyword if options is None else options.get("delaySeconds", keyword)
    if delay is not None and (
        isinstance(delay, bool) or not isinstance(delay, int | float) or not 0 <= delay <= 86_400
    ):
        raise JsException("TypeError", f"delaySeconds must be between 0 and 86400, not {delay}")
    return delay
