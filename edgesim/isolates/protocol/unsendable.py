"""Frames that cannot be encoded, and what is said in their place.

Worker code can hand over anything: an object in a queue's decisions, lists in lists beyond what the
encoder follows.  That is an exception of the one invocation, and no reason for the process to end.

This module is loaded into isolates, so it imports nothing of the platform.
"""

from __future__ import annotations

from typing import Any

from edgesim.isolates.protocol.limits import json_bytes
from edgesim.isolates.protocol.wire import Call, Done, Failure, Frame, Invoke, Log, Reply, one

UNSENDABLE = (TypeError, ValueError, OverflowError, RecursionError)
"""Errors that the encoder raises for an invalid frame; after a MemoryError the frame is valid."""

Frames = list[tuple[int, Frame]]


def sendable(frames: Frames) -> tuple[Frames, Frames]:
    """The frames as they can be said, and answers to questions among them that cannot be asked."""
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
    """The encoder's refusal in the platform's words."""
    if isinstance(error, RecursionError):
        return Failure("RangeError", "Maximum call stack size exceeded")
    return Failure("TypeError", str(error))


def shown(message: list[Any]) -> list[Any]:
    """A console call's parts, with a word in place of each that cannot be sent."""
    return [part if _crosses(part) else f"[object {type(part).__name__}]" for part in message]


def _crosses(part: Any) -> bool:
    if isinstance(part, str):
        return True
    try:
        json_bytes(part)
    except ValueError:
        return False
    return True
