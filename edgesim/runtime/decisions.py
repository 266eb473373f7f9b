"""What a queue handler has decided about its batch, as its isolate tells it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edgesim.config.consumers import DELAY_SECONDS_MAX
from edgesim.isolates.wire import Done, Failure

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
