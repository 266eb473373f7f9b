"""The ``inline`` level: the handler runs in the platform's own process, for breakpoints.

Modules are fresh for each invocation and every value is copied through the wire's encoding, as at
the other levels; the interpreter, its library modules and its memory are shared.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import structlog

from edgesim.clock import Clock
from edgesim.errors import WorkerLoadError
from edgesim.isolates.guest import stand_ins
from edgesim.isolates.guest.import_order import refuse_names
from edgesim.isolates.guest.module_namespace import CodeCache, Namespace, open_sources
from edgesim.isolates.guest.packages import module_folders
from edgesim.isolates.guest.worker_import import SDK, explain
from edgesim.isolates.host.driver import Host, Isolates, answer
from edgesim.isolates.host.shadowing import shadowed
from edgesim.isolates.protocol.unsendable import UNSENDABLE, failure_of, sendable
from edgesim.isolates.protocol.wire import Call, Done, Frame, Invoke, Log, Reply, Respond, copied
from edgesim.model import WorkerSpec

DETERMINISTIC = True
real_sleep = time.sleep

log = structlog.get_logger()


class _LocalChannel:
    """A channel without a socket: frames are encoded and decoded, then handled on the spot."""

    def __init__(self, host: Host, clock: Clock) -> None:
        self._host = host
        self._clock = clock
        # The platform's own context: its output while it handles a frame is no Worker's log.
        self._context = contextvars.copy_context()

    def now(self) -> float:
        return self._clock.now()

    def steady(self) -> float:
        return self._clock.steady()

    def sleep(self, seconds: float) -> None:
        real_sleep(seconds)

    def send(self, frame: Frame) -> None:
        if isinstance(frame, Log) and all(map(_is_plain, frame.message)):
            self._context.run(self._host.log, frame)  # immutable, so no copy is needed
            return
        match _copied(frame):
            case Log() as log:
                self._context.run(self._host.log, log)
            case Respond() as response:
                self._context.run(self._host.respond, response)
            case other:
                raise TypeError(f"unexpected {type(other).__name__} from an isolate")

    async def ask(self, call: Call) -> Reply:
        from workers._runtime import current

        try:
            request = copied(call)
        except UNSENDABLE as error:
            return Reply(call.id, self.now(), error=failure_of(error))
        assert isinstance(request, Call)
        # The platform handles the call in the Worker's task; its output is no Worker's log.
        worker = current.set(None)  # type: ignore[arg-type]  # as outside any invocation
        try:
            reply = _copied(await answer(request, self._host, self._clock))
        finally:
            current.reset(worker)
        assert isinstance(reply, Reply)
        return reply


class InlineIsolates(Isolates):
    """Isolates of one Worker: a new Namespace for each invocation."""

    def __init__(self, spec: WorkerSpec, clock: Clock) -> None:
        from workers._bindings import Env
        from workers._runtime import current_env

        from edgesim.isolates.guest import clock_and_random, entrypoints, file_functions, serve

        clock_and_random.install()
        file_functions.install([])
        self.guards: list[str] = []
        self.zygote = None
        self._serve = serve
        self._entrypoints = entrypoints
        self._legacy = spec.legacy_handlers
        self._clock_and_random = clock_and_random
        self._clock = clock
        self._main = Path(spec.main)
        self._sources = open_sources(CodeCache(self._main.parent))
        self._bindings: list[tuple[str, str, Any]] = [
            (each.name, each.kind, each.value) for each in spec.bindings
        ]
        self._env_of = Env
        self._current_env = current_env
        self.lost = anyio.Event()
        try:
            refuse_names(self._main)
            entries = contextvars.copy_context().run(self._load)
        except BaseException as error:
            raise WorkerLoadError(f"worker {spec.name}: {explain(error, self._main)}") from error
        self.handlers = frozenset(entrypoints.handlers_of(entries))
        self.entrypoints = frozenset(entries)

    def _new_env(self) -> Any:
        return self._env_of(self._bindings)

    def _load(self) -> Any:
        token = self._current_env.set(self._new_env())
        try:
            with self._clock_and_random.global_scope():
                namespace = Namespace(self._sources)
                stand_ins.running.set(namespace)
                module = namespace.load(self._main.stem)
                return self._entrypoints.entrypoints(module, self._legacy)
        finally:
            self._current_env.reset(token)

    async def invoke(self, invoke: Invoke, host: Host) -> Done:
        """Run it in this process; an exception of the module's import is the invocation's."""
        try:
            request = copied(invoke)
        except UNSENDABLE as error:
            return Done("exception", [failure_of(error)])
        assert isinstance(request, Invoke)

        _route_console()
        serving = self._serve.Serving(_LocalChannel(host, self._clock), request.seed)
        started = time.thread_time()
        work = self._serve.serve(request, self._load, self._new_env, serving)
        try:
            done = await _in_a_task(work)
        except asyncio.CancelledError:
            host.spent((time.thread_time() - started) * 1000)
            raise
        done.cpu_ms = (time.thread_time() - started) * 1000
        copy = _copied(done)
        assert isinstance(copy, Done)
        return copy


async def _in_a_task(work: Coroutine[Any, Any, Done]) -> Done:
    """Run the work in its own task, so that its context variables end with it.

    A cancellation is passed on repeatedly until the task ends: worker code may suppress it.
    """
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    task = loop.create_task(work)
    task.add_done_callback(lambda _: None if over.done() else over.set_result(None))
    try:
        await over
    except asyncio.CancelledError:
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
        raise
    return task.result()


@asynccontextmanager
async def open_isolates(spec: WorkerSpec, clock: Clock) -> AsyncIterator[InlineIsolates]:
    """Load the Worker in this process."""
    if SDK not in sys.path:
        sys.path.insert(0, SDK)
    _route_console()
    stand_ins.install()
    # Last in the path, so that no vendored package shadows a module that the platform imports.
    folders = module_folders(Path(spec.main))
    packages = folders[1:]
    if hidden := sorted(shadowed(packages)):
        log.warning(
            "vendored packages are not used at inline",
            worker=spec.name,
            packages=", ".join(hidden),
            cure="use --isolation process or warm",
        )
    sys.path.extend(packages)
    from edgesim.isolates.guest import file_functions

    try:
        with file_functions.visible([*sys.path, *folders]):
            yield InlineIsolates(spec, clock)
    finally:
        for each in packages:
            sys.path.remove(each)


def _is_plain(part: Any) -> bool:
    """Return True for text that encoding would not change; others may have lone surrogates."""
    return type(part) is str and part.isascii()


def _copied(frame: Frame) -> Frame:
    """Return the frame as the other side would receive it, or its replacement if unsendable."""
    try:
        return copied(frame)
    except UNSENDABLE:
        (said, _) = sendable([(0, frame)])
        return copied(said[0][1])


def _route_console() -> None:
    """Route ``print`` of worker code to the Worker's log; other output goes to the terminal.

    Called before each load and invocation: the program around the platform may replace the streams
    at any time, as pytest does between the phases of a test.
    """
    from edgesim.isolates.guest.serve import ConsoleStream

    if not isinstance(sys.stdout, ConsoleStream):
        sys.stdout = ConsoleStream("log", sys.stdout)
    if not isinstance(sys.stderr, ConsoleStream):
        sys.stderr = ConsoleStream("error", sys.stderr)
