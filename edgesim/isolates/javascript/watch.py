"""The limits of a workerd process, which has none of its own: CPU time, memory, a blocked loop.

V8's heap is limited by V8, which ends the process; what is outside of the heap (buffers) is seen
here.  CPU time is the process's, shared by the invocations in it; a loop that never returns keeps
workerd from replying to a ping.
"""

from __future__ import annotations

import anyio

from edgesim.isolates.javascript.http import HttpMessage, LostError
from edgesim.isolates.javascript.invocation import cpu_exceeded, memory_exceeded
from edgesim.isolates.javascript.process import INVOKE, WorkerdProcess
from edgesim.model import Limits

LOOK_SECONDS = 0.1
BUSY = 0.5
"""Share of a core above which a process is asked whether it still replies."""
STALL_SECONDS = 1.0
"""CPU seconds without a reply after which a callback is taken for one that does not return."""
OVERHEAD_BYTES = 96 << 20
"""Memory of workerd itself, beside that of the Worker."""
_PING = HttpMessage([(INVOKE, '{"handler":"ping"}')], b"", "GET", "http://edgesim/")


async def watch(process: WorkerdProcess, limits: Limits) -> None:
    """Watch over a process until it ends; kill it for what an invocation does."""
    stalled_ms = 0.0
    async with anyio.create_task_group() as pings:
        while not process.ended.is_set():
            await anyio.sleep(LOOK_SECONDS)
            used_ms = process.charge()
            isolates = len(process.runs) if process.fresh else 1
            if process.memory_bytes() > OVERHEAD_BYTES + isolates * limits.memory_bytes:
                process.kill(memory_exceeded())
            elif any(run.cpu_ms > limits.cpu_ms for run in process.runs.values()):
                process.kill(cpu_exceeded())
            busy = used_ms > BUSY * LOOK_SECONDS * 1000
            if not process.pinging and (not busy or not process.runs):
                stalled_ms = 0.0
                continue
            if not process.pinging:
                pings.start_soon(_ping, process)
                continue
            stalled_ms += used_ms
            if stalled_ms > limits.cpu_ms:
                process.kill(cpu_exceeded())
            elif stalled_ms > STALL_SECONDS * 1000:
                process.retire()
        pings.cancel_scope.cancel()


async def _ping(process: WorkerdProcess) -> None:
    process.pinging = True
    try:
        await process.exchange(_PING)
    except LostError:
        return  # it has ended, which is seen elsewhere
    finally:
        process.pinging = False
