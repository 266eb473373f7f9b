"""Replacements for frames that cannot be encoded.

Worker code can pass any value, such as an object in a queue's decisions, or lists nested deeper
than the encoder's limit.  The result is an exception in that invocation; the process continues.

This module is loaded into isolates, so it imports nothing of the platform.
"""

from __future__ import annotations

from typing import Any

from edgesim.isolates.protocol.limits import json_bytes
from edgesim.isolates.protocol.wire import Call, Done, Failure, Frame, Invoke, Log, Reply, one

UNSENDABLE = (TypeError, ValueError, OverflowError, RecursionError)
"""Errors that the encoder raises for an invalid frame.  A MemoryError says nothing about it."""

Frames = list[tuple[int, Frame]]


def sendable(frames: Frames) -> tuple[Frames, Frames]:
    """Return encodable frames in place of ``frames``, and replies to those that got lost.

    A Call or Invoke that cannot be encoded is not sent; its sender gets an error as the reply.
    Other frames are replaced.
    """
    said: Frames = []
    answers: Frames = []
    for number, frame in frames:
        try:
            one(frame, number)
        except UNSENDABLE as error:
            _replace(number, frame, error, said, answers)
        else:
            said.append((number, frame))
    return said, answers


def _replace(number: int, frame: Frame, error: Exception, said: Frames, answers: Frames) -> None:
    failure = failure_of(error)
    match frame:
        case Call():
            answers.append((number, Reply(frame.id, 0.0, error=failure)))
        case Invoke():
            answers.append((number, Done("exception", [failure])))
        case Reply():
            said.append((number, Reply(frame.id, frame.now, error=failure)))
        case Log():
            said.append((number, Log(frame.level, shown(frame.message), frame.now)))
        case Done():
            outcome = "exception" if frame.outcome == "ok" else frame.outcome
            said.append((number, Done(outcome, [*frame.exceptions, failure], None, frame.cpu_ms)))
        case _:
            said.append((number, Done("exception", [failure])))


def failure_of(error: Exception) -> Failure:
    """Return the platform's exception for an encoding error."""
    if isinstance(error, RecursionError):
        return Failure("RangeError", "Maximum call stack size exceeded")
    return Failure("TypeError", str(error))


def shown(message: list[Any]) -> list[Any]:
    """Return a console call's parts; each part that cannot be sent is replaced by its class."""
    return [part if _crosses(part) else f"[object {type(part).__name__}]" for part in message]


def _crosses(part: Any) -> bool:
    if isinstance(part, str):
        return True
    try:
        json_bytes(part)
    except ValueError:
        return False
    return True
