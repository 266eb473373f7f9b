"""A queue batch becomes an invocation, and the invocation's outcome becomes acks and retries.

Facts: workerd's queue.c++ and the Queues documentation.  Normal return: what has no decision is
acked. A throw, or a rejected waitUntil: what was not explicitly acked is retried; explicit acks
stand.  Where the platform failed and not the handler, all is retried and nothing counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from edgesim.isolates.wire import Done
from edgesim.model import BatchResult, Message, Retry
from edgesim.queues.encoding import decode
from edgesim.queues.producer import Metrics
from edgesim.runtime.bindings import shown_metrics
from edgesim.runtime.decisions import checked, decisions_of
from edgesim.runtime.worker import Worker

log = structlog.get_logger()


async def deliver(
    worker: Worker, queue: str, messages: Sequence[Message], metrics: Metrics
) -> BatchResult:
    """Run the Worker's queue handler over ``messages``; ``metrics`` are the queue's backlog."""
    try:
        wire = [
            {
                "id": message.id,
                "timestamp": message.timestamp_ms,
                "attempts": message.attempts,
                "body": decode(message.body, message.content_type),
            }
            for message in messages
        ]
    except ValueError as error:  # the message's fault, which no producer of ours lets in
        log.error("queue message cannot be decoded", queue=queue, error=str(error))
        return BatchResult(retries=[Retry(message.id) for message in messages], failed=True)
    metadata = {"metrics": shown_metrics(metrics)}
    done = await worker.queue(queue, wire, metadata)
    return settle([message.id for message in messages], done)


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
