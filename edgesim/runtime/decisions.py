"""The decisions of a queue handler about its batch, and each message's fate by them.

Facts: workerd's queue.c++ and the Queues documentation.  Normal return: what has no decision is
acked. A throw, or a rejected waitUntil: what was not explicitly acked is retried; explicit acks
stand.  Where the platform failed and not the handler, all is retried and nothing counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from edgesim.config.consumers import DELAY_SECONDS_MAX
from edgesim.isolates.wire import Done, Failure
from edgesim.model import BatchResult, Retry

Decision = Literal["ack", "retry"]
Delay = Annotated[float, msgspec.Meta(ge=0, le=DELAY_SECONDS_MAX)]


class Decisions(msgspec.Struct, rename="camel", frozen=True):
    """By message id, and for those that have none of their own; delays are seconds."""

    messages: dict[str, tuple[Decision, Delay | None]] = {}
    all: Decision | None = None
    delay_seconds: Delay | None = None


def decisions_of(done: Done) -> Decisions:
    """What was decided, nothing by one that died; msgspec's ValidationError for nonsense."""
    return Decisions() if done.result is None else msgspec.convert(done.result, Decisions)


def checked(done: Done) -> Done:
    """The end of a queue handler, or of one whose decisions make no sense and so do not count."""
    try:
        decisions_of(done)
    except msgspec.ValidationError as error:
        failure = Failure("Error", f"The queue handler's decisions make no sense: {error}")
        return Done("internalError", [*done.exceptions, failure], None, done.cpu_ms)
    return done


def settle(ids: Sequence[str], done: Done) -> BatchResult:
    """Each message's fate, by its own decision, then the batch's, then the outcome."""
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
