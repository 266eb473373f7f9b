"""Acks and retries that a queue handler decided, and the result for each message of its batch.

Facts: workerd's queue.c++ and the Queues documentation.  Normal return: messages without a
decision are acked.  A throw, or a rejected waitUntil: messages without an explicit ack are retried;
explicit acks stand.  If the platform failed and not the handler, all messages are retried and the
attempt does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from edgesim.config.queues import DELAY_SECONDS_MAX
from edgesim.isolates.protocol.wire import Done, Failure
from edgesim.model import BatchResult, Retry

Decision = Literal["ack", "retry"]
Delay = Annotated[float, msgspec.Meta(ge=0, le=DELAY_SECONDS_MAX)]


class Decisions(msgspec.Struct, rename="camel", frozen=True):
    """Decisions by message id; ``all`` and ``delay_seconds`` (seconds) apply to the rest."""

    messages: dict[str, tuple[Decision, Delay | None]] = {}
    all: Decision | None = None
    delay_seconds: Delay | None = None


def decisions_of(done: Done) -> Decisions:
    """Return the decisions, none if the handler did not finish; ValidationError if invalid."""
    return Decisions() if done.result is None else msgspec.convert(done.result, Decisions)


def checked(done: Done) -> Done:
    """Return ``done``, or an internalError without decisions if its decisions are invalid."""
    try:
        decisions_of(done)
    except msgspec.ValidationError as error:
        failure = Failure("Error", f"The queue handler's decisions make no sense: {error}")
        return Done("internalError", [*done.exceptions, failure], None, done.cpu_ms)
    return done


def settle(ids: Sequence[str], done: Done) -> BatchResult:
    """Ack or retry each message by its own decision, else the batch's, else the outcome."""
    done = checked(done)
    if done.blameless:
        reason = done.exceptions[0].message if done.exceptions else done.outcome
        return BatchResult(retries=[Retry(each) for each in ids], failed=True, not_delivered=reason)
    decided = decisions_of(done)
    rest = decided.all or ("ack" if done.outcome == "ok" else "retry")
    rest_delay = decided.delay_seconds if decided.all == "retry" else None
    acks: list[str] = []
    retries: list[Retry] = []
    for message_id in ids:
        decision, delay = decided.messages.get(message_id, (rest, rest_delay))
        if decision == "ack":
            acks.append(message_id)
        else:
            retries.append(Retry(message_id, delay))
    return BatchResult(acks, retries, failed=done.outcome != "ok")
