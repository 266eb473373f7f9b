"""The start of a workerd process: from the program to a loaded Worker."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import anyio
import msgspec

from edgesim import foreign
from edgesim.errors import WorkerLoadError
from edgesim.isolates.javascript import inspector
from edgesim.isolates.javascript.http import HttpMessage, LostError
from edgesim.isolates.javascript.process import (
    INVOKE,
    URL,
    BootReport,
    WorkerdProcess,
    WorkerdProgram,
    status_of,
)
from edgesim.isolates.javascript.settings import PLATFORM, SOCKET
from edgesim.isolates.javascript.stderr import Stderr
from edgesim.isolates.javascript.wires import BACKLOG
from edgesim.model import Body, Stream, iterate

START_SECONDS = 20.0
REPORT_BYTES_MAX = 1 << 20
"""Maximum size of a Worker's first report."""
_ENVIRONMENT = {"TZ": "UTC", "LANG": "C.UTF-8"}


@asynccontextmanager
async def open_process(
    program: WorkerdProgram, number: int, tasks: asyncio.TaskGroup
) -> AsyncIterator[WorkerdProcess]:
    """Start workerd and load the Worker in it; WorkerLoadError if it does not start or load."""
    path = program.folder / str(number)
    stderr = Stderr(program.worker)
    report = path.with_suffix(".ports")
    with (
        socket.socket(socket.AF_UNIX) as listener,
        stderr.pipe() as pipe,
        report.open("wb") as control,
    ):
        listener.bind(str(path.with_suffix(".in")))
        listener.listen(BACKLOG)
        running = await foreign.start(
            [
                *(sys.executable, "-P", "-s", "-m", "edgesim.isolates.javascript.launch"),
                *(
                    str(os.getpid()),
                    str(program.folder),
                    str(program.workerd),
                    "serve",
                    "--experimental",
                ),
                f"--socket-fd={SOCKET}={listener.fileno()}",
                f"--external-addr={PLATFORM}=unix:{path.with_suffix('.out')}",
                *(inspector.options(control.fileno()) if program.inspected else ()),
                str(program.settings),
            ],
            pass_fds=[listener.fileno(), *([control.fileno()] if program.inspected else [])],
            stdout=pipe,
            stderr=pipe,
            env=_ENVIRONMENT,
        )
    process = WorkerdProcess(program, running, path, stderr, tasks)
    async with aclosing(running), anyio.create_task_group() as watching:
        if not foreign.stops_the_world():
            watching.start_soon(_follow, running, process)
        try:
            await process.wires.listen()
            await _boot(program, process, stderr)
            process.inspector_port = inspector.port(report.read_bytes())
            yield process
        finally:
            with anyio.CancelScope(shield=True):
                process.kill()
                await running.wait()
                process.end()
                process.wires.close()
            watching.cancel_scope.cancel()


async def _follow(running: foreign.Process, process: WorkerdProcess) -> None:
    await running.wait()
    process.end()


async def _boot(program: WorkerdProgram, process: WorkerdProcess, stderr: Stderr) -> None:
    request = HttpMessage([(INVOKE, '{"handler":"boot"}')], b"", "POST", URL)
    problem: str | None = f"did not load within {START_SECONDS:.0f} s"
    with anyio.move_on_after(START_SECONDS):
        try:
            response = await process.wires.exchange("", request)
            problem = await _problem(program, process, response)
        except LostError:
            status = await process.exit_status()
            problem = f"workerd ended while it started ({status_of(status)})"
    if problem is not None:
        said = stderr.error()
        raise WorkerLoadError(f"worker {program.worker}: {said or problem}")


async def _problem(
    program: WorkerdProgram, process: WorkerdProcess, response: HttpMessage
) -> str | None:
    """The reason why the Worker did not load, or None."""
    if response.status != 200:
        return "workerd does not start it"
    try:
        report = await _report(response.body)
        process.booted = msgspec.json.decode(report, type=BootReport)
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        return f"its isolate sent what none sends: {error}"
    if process.booted.error is not None:
        name, message, stack = process.booted.error
        place = program.sources.first(stack or "")
        return f"{place}: {name}: {message}" if place else f"{name}: {message}"
    if process.booted.handlers is None:
        return "its main module has no default export; export default { async fetch(...) {...} }"
    return None


async def _report(body: Body) -> bytes:
    """The first report of an isolate; ValueError if it is too long."""
    report = b""
    async for chunk in iterate(body):
        report += chunk
        if len(report) > REPORT_BYTES_MAX:
            if isinstance(body, Stream):
                await body.aclose()
            raise ValueError(f"a report of more than {REPORT_BYTES_MAX} bytes")
    return report
