"""Send the event of an earlier invocation again, to the code as saved now, and compare."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec

from edgesim.errors import ConfigError, RunError, UsageError, WorkerLoadError
from edgesim.runtime.decisions import settle
from edgesim.runtime.finished import FinishedInvocation
from edgesim.simulator import Simulator

AGAIN_SECONDS = 60.0


class AgainOutcome(msgspec.Struct, frozen=True):
    """The observable result of an invocation.

    ``body`` is the response's, None if there is none or it is not kept; ``acked`` and ``retried``
    are the ids of a batch's messages.
    """

    outcome: str
    status: int | None
    body: str | None
    console: list[str]
    exceptions: list[str]
    acked: list[str]
    retried: list[str]
    cpu_ms: float
    wall_ms: float


class OutcomeDifference(msgspec.Struct, frozen=True):
    """A part of the outcome that is not as before."""

    what: str
    before: Any
    after: Any


class Comparison(msgspec.Struct, frozen=True):
    """The outcomes of an invocation and of its repetition, which has the id ``again``.

    ``reloaded``: the Workers that were replaced by their saved code first.
    """

    id: str
    again: str
    same: bool
    differences: list[OutcomeDifference]
    before: AgainOutcome
    after: AgainOutcome
    reloaded: list[str]


_TIMES = {"cpu_ms", "wall_ms"}


async def send_again(
    simulator: Simulator, earlier: FinishedInvocation, message: str
) -> tuple[FinishedInvocation, list[str]]:
    """Run the handler once more, after a reload of changed Workers; returns their names too.

    ``message`` is the id of the only message of a batch to send; empty for all.  RunError if the
    handler does not end in time.
    """
    if message:
        earlier = _with_one(earlier, message)
    try:
        reloaded = await simulator.workers.update()
    except (WorkerLoadError, ConfigError) as error:
        raise UsageError(f"the code as saved now does not load: {error}") from error
    worker = simulator.workers.get(earlier.item.script_name)
    if worker is None or not worker.has(earlier.handler):
        name = earlier.item.script_name
        raise UsageError(f"there is no Worker {name!r} with a {earlier.handler} handler any more")
    with anyio.move_on_after(AGAIN_SECONDS):
        return await worker.again(earlier), reloaded
    raise RunError(f"the handler has not ended after {AGAIN_SECONDS:.0f} s")


def _with_one(earlier: FinishedInvocation, message: str) -> FinishedInvocation:
    if earlier.handler != "queue":
        raise UsageError("message: only a batch of a queue has messages")
    messages = [each for each in earlier.event["messages"] if each["id"] == message]
    if not messages:
        raise UsageError(f"message: the batch has no message {message!r}")
    event = earlier.event | {"messages": messages}
    return msgspec.structs.replace(earlier, event=event)


def compared(
    identifier: str,
    again: str,
    before: FinishedInvocation,
    after: FinishedInvocation,
    reloaded: list[str],
) -> Comparison:
    """Compare two runs over the same event; of a batch only the messages that both had."""
    ids = _message_ids(after)
    first, second = _outcome(before, ids), _outcome(after, ids)
    differences = [
        OutcomeDifference(name, old, new)
        for name in AgainOutcome.__struct_fields__
        if name not in _TIMES and (old := getattr(first, name)) != (new := getattr(second, name))
    ]
    return Comparison(identifier, again, not differences, differences, first, second, reloaded)


def _message_ids(finished: FinishedInvocation) -> list[str]:
    if finished.handler != "queue":
        return []
    return [message["id"] for message in finished.event["messages"]]


def _outcome(finished: FinishedInvocation, ids: list[str]) -> AgainOutcome:
    item = finished.item
    decided = settle(ids, finished.done) if ids else None
    return AgainOutcome(
        outcome=item.outcome,
        status=((item.event or {}).get("response") or {}).get("status"),
        body=None if finished.reply is None else finished.reply.decode("utf-8", "replace"),
        console=[f"{entry.level}: {' '.join(map(_text, entry.message))}" for entry in item.logs],
        # The last line: a traceback has line numbers, which any edit changes.
        exceptions=[each.message.rpartition("\n")[2] for each in item.exceptions],
        acked=decided.acks if decided else [],
        retried=[each.id for each in decided.retries] if decided else [],
        cpu_ms=item.cpu_time,
        wall_ms=item.wall_time,
    )


def _text(part: Any) -> str:
    return part if isinstance(part, str) else msgspec.json.encode(part).decode()
