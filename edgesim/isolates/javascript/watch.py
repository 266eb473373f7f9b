"""Watches over a workerd process, which has no limits of its own.

CPU time is the process's, shared by the invocations in it; a loop that never returns keeps workerd
from replying to a ping.
"""

from __future__ import annotations

import anyio

from edgesim.foreign import stops_the_world
from edgesim.isolates.javascript.http import LostError
from edgesim.isolates.javascript.invocation import cpu_exceeded
from edgesim.isolates.javascript.process import WorkerdProcess
from edgesim.model import Limits
from edgesim.system import LINUX

LOOK_SECONDS = 0.1
BUSY = 0.5
"""Share of a core above which a process is asked whether it still replies."""
STALL_SECONDS = 1.0
"""CPU seconds without a reply after which a callback is taken for one that does not return."""


async def watch(process: WorkerdProcess, limits: Limits) -> None:
    """Watch over a process until it ends; kill it for what an invocation does.

    Where time is virtual the process itself looks, in each of its turns.
    """
    if stops_the_world():
        return
    stalled_ms = 0.0
    async with anyio.create_task_group() as pings:
        while not process.ended.is_set():
            await anyio.sleep(LOOK_SECONDS)
            used_ms = process.enforce() if LINUX else _passed_ms(process)
            busy = used_ms > BUSY * LOOK_SECONDS * 1000
            if not process.pinging and (not busy or not process.runs):
                stalled_ms = 0.0
                continue
            if not process.pinging:
                stalled_ms = stalled_ms if LINUX else 0.0  # the last ping had its reply
                pings.start_soon(_ping, process)
                continue
            stalled_ms += used_ms
            if stalled_ms > limits.cpu_ms:
                process.kill(cpu_exceeded())
            elif stalled_ms > STALL_SECONDS * 1000:
                process.retire()
        pings.cancel_scope.cancel()


def _passed_ms(process: WorkerdProcess) -> float:
    """The wall time of one look, if an invocation runs: elsewhere CPU time cannot be read.

    It counts only while a ping has no reply, so an invocation may wait as long as it likes.
    """
    return LOOK_SECONDS * 1000 if process.runs else 0.0


async def _ping(process: WorkerdProcess) -> None:
    process.pinging = True
    try:
        await process.ping()
    except LostError:
        return  # it has ended, which is seen elsewhere
    finally:
        process.pinging = False
