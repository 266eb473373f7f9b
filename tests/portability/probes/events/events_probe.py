"""Probes of queue, tail, scheduled and RPC: each handler prints its arguments."""

import asyncio
import json
from datetime import datetime

from workers import WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def queue(self, batch, env=None, ctx=None):
        print(batch.queue, len(batch.messages), env, ctx, type(batch.messages).__name__)
        for message in batch.messages:
            body = message.body
            print(message.id, message.attempts, message.timestamp, type(body).__name__, shown(body))
            if isinstance(body, dict) and "do" in body:
                globals()[body["do"]](batch, message, body)

    def tail(self, events, env=None, ctx=None):
        print(type(events).__name__, len(events), env, ctx)
        for event in events:
            print(event.scriptName or "no name", event.outcome, event.truncated is False)
            print(event.event.request.url, getattr(event.event.request.headers, "x-probe"))
            print(getattr(event.event, "cron", None), event.cpuTime, event.eventTimestamp)
            for log in event.logs:
                print(log.level, log.timestamp, len(log.message), log.message[0])
                print(" ".join(part for part in log.message if isinstance(part, str)))
                print([bool(part) for part in log.message], log.message[:1].to_py())
            for each in event.exceptions:
                print(each.name, each.message)
            for attempt in (
                lambda: event["logs"],
                lambda: event.absent,
                lambda: event.logs[0]["level"],
                lambda: json.dumps(event.event),
                lambda: event.scriptName.startswith("x"),
            ):
                print(failing(attempt))

    async def scheduled(self, controller, env=None, ctx=None):
        controller.noRetry()
        print(
            controller.cron, controller.scheduledTime, env, ctx, failing(lambda: controller["cron"])
        )

    async def echo(self, value, *more):
        print(type(value).__name__, shown(value), len(more))
        return value

    async def values(self):
        return {"none": None, "list": [1, 2.0, "x"], "bytes": b"ab", "when": datetime(2026, 1, 2)}

    async def refused(self):
        return (1, 2)

    def broken(self):
        raise LookupError("in RPC")

    async def behind(self):
        async def work():
            await asyncio.sleep(0.001)
            print("done behind")

        self.ctx.waitUntil(work())
        self.ctx.waitUntil(asyncio.create_task(work()))
        return 1

    async def behind_and_failing(self):
        async def work():
            raise OSError("behind")

        self.ctx.waitUntil(work())
        return 1


def shown(value):
    if isinstance(value, memoryview):
        return list(bytes(value))
    if isinstance(value, datetime):
        return value.isoformat()
    return json.dumps(value)


def failing(call):
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return "nothing"


def ack(batch, message, body):
    message.ack()


def retry(batch, message, body):
    message.retry(delaySeconds=body["delay"])


def retry_with_a_dict(batch, message, body):
    message.retry({"delaySeconds": body["delay"]})


def retry_plain(batch, message, body):
    message.retry()


def ack_then_retry(batch, message, body):
    message.ack()
    message.retry()


def retry_then_ack(batch, message, body):
    message.retry()
    message.ack()


def ack_all(batch, message, body):
    batch.ackAll()


def retry_all(batch, message, body):
    batch.retryAll(delaySeconds=7)


def fail(batch, message, body):
    raise RuntimeError("the batch fails")


def refused(batch, message, body):
    print(failing(lambda: message.retry(5)), failing(lambda: message.retry(delaySeconds=-1)))


def attributes_and_items(batch, message, body):
    print(batch["queue"], message["id"], body.do, body["items"], type(body.items).__name__)
    print(
        failing(lambda: len(batch)), failing(lambda: list(batch)), failing(lambda: message.absent)
    )
