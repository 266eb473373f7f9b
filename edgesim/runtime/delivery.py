"""Delivery of queue batches: runs the queue handler and turns its outcome into acks and retries."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from edgesim.model import BatchResult, Message, Retry
from edgesim.queues.encoding import decode
from edgesim.queues.producer import Metrics
from edgesim.runtime.bindings import shown_metrics
from edgesim.runtime.decisions import settle
from edgesim.runtime.worker import Worker
from edgesim.tracing import TraceSources, parsed

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
    except ValueError as error:  # not written by edgesim, whose producers validate every message
        log.error("queue message cannot be decoded", queue=queue, error=str(error))
        return BatchResult(retries=[Retry(message.id) for message in messages], failed=True)
    metadata = {"metrics": shown_metrics(metrics)}
    size = sum(len(message.body) for message in messages)
    sources = TraceSources(parsed(message.trace) for message in messages if message.trace)
    done = await worker.queue(queue, wire, metadata, size, sources)
    return settle([message.id for message in messages], done)
