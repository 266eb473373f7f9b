"""WorkerEntrypoint, its context, and what queue handlers are given."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from typing import Any

from workers._convert import from_ms, from_wire
from workers._runtime import invocation


class Context:
    """``self.ctx``: the invocation's own life."""

    def waitUntil(self, work: Awaitable[Any]) -> None:
        """Go on with ``work`` after the response, for at most 30 s."""
        invocation().wait_until(work)

    def passThroughOnException(self) -> None:
        """Nothing to pass through to: a local Worker has no origin behind it."""


class WorkerEntrypoint:
    """Base of a Worker's ``Default`` class; a new instance for every invocation."""

    def __init__(self, ctx: Any, env: Any) -> None:
        self.ctx = ctx
        self.env = env


def wait_until(work: Awaitable[Any]) -> None:
    """The module-level form of ``ctx.waitUntil``."""
    invocation().wait_until(work)


class Message:
    """One message of a batch.  Of ack and retry the first call wins, the later one only warns."""

    def __init__(self, wire: dict[str, Any]) -> None:
        self.id: str = wire["id"]
        self.attempts: int = wire["attempts"]
        self.timestamp = from_ms(wire["timestamp"])
        self.body: Any = from_wire(wire["body"])
        self._decided: str | None = None
        self._delay_seconds: float | None = None

    def ack(self) -> None:
        """Done with it, whatever happens to the rest of the batch."""
        self._decide("ack")

    def retry(
        self, options: dict[str, Any] | None = None, *, delaySeconds: float | None = None
    ) -> None:
        """Deliver it again, after ``delaySeconds``."""
        delay = _delay(options, delaySeconds)
        if self._decide("retry"):
            self._delay_seconds = delay

    def _decide(self, decision: str) -> bool:
        if self._decided is None:
            self._decided = decision
            return True
        if self._decided != decision:
            warning = (
                f"Received a call to {decision}() on message {self.id} after {self._decided}() was "
                "already called. Calling one after the other has no effect."
            )
            invocation().log("warn", [warning])
        return False


class MessageBatch:
    """What a queue handler is given."""

    def __init__(self, wire: dict[str, Any]) -> None:
        self.queue: str = wire["queue"]
        self.messages = [Message(each) for each in wire["messages"]]
        self.metadata: Any = from_wire(wire.get("metadata", {}))
        self._decided: str | None = None
        self._delay_seconds: float | None = None

    def ackAll(self) -> None:
        """As if ack() were called on every message that has no decision yet."""
        self._decided = self._decided or "ack"

    def retryAll(
        self, options: dict[str, Any] | None = None, *, delaySeconds: float | None = None
    ) -> None:
        """As if retry() were called on every message that has no decision yet."""
        delay = _delay(options, delaySeconds)
        if self._decided is None:
            self._decided = "retry"
            self._delay_seconds = delay

    def _result(self) -> dict[str, Any]:
        """Decisions made so far: per message, and for the rest ("ack", "retry" or None)."""
        return {
            "messages": {
                each.id: (each._decided, each._delay_seconds)
                for each in self.messages
                if each._decided is not None
            },
            "all": self._decided,
            "delaySeconds": self._delay_seconds,
        }


def _delay(options: Any, keyword: float | None) -> float | None:
    if options is not None and not isinstance(options, dict):
        raise TypeError(
            "retry takes delaySeconds=... or {'delaySeconds': ...}, "
            f"not {json.dumps(options, default=str)}"
        )
    delay = keyword if options is None else options.get("delaySeconds", keyword)
    if delay is not None and not 0 <= delay <= 86_400:
        raise TypeError(f"delaySeconds must be between 0 and 86400, not {delay}")
    return delay
