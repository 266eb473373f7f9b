"""Worker that searches for its neighbours by attributes and items, from the requested roots.

The search calls only what returns objects: weak references, ``__subclasses__``, ``__reduce_ex__``.
"""

import abc
import asyncio
import builtins
import contextvars
import gc
import inspect
import json
import logging
import os
import signal
import stat
import sys
import threading
import time
import types
import weakref

import js
import workers
from workers import Response, WorkerEntrypoint
from workers._runtime import current, current_env

OBJECTS_MAX = 12_000
TURN = 500
"""Objects examined before the search yields to other tasks."""
POWERS = {"Scheduler", "Resident", "Wire", "KeyedSocket", "MessageReader", "socket", "_Hook"}
"""Names of the classes that serve all invocations; the classes cannot be imported."""
PLAIN = (str, bytes, int, float, complex, bool, type(None), types.CodeType, bytearray, range)

kept = contextvars.ContextVar("kept")
secret_of_module = None


class Keeper:
    secret = None


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        path = request.url.split("/", 3)[3]
        if path == "victim":
            return await self.keep(request)
        if path == "channel":
            return Response(read_channel())
        if path == "pid":
            return Response(str(os.getpid()))
        roots = await ROOTS[path](self, request)
        found = await search(roots)
        return Response(json.dumps({"pid": os.getpid(), "found": found, "seen": len(roots)}))

    async def keep(self, request):
        """Keep a secret in a global, a class, a context, a local and a task until the fetch returns."""
        global secret_of_module
        secret = await request.text()
        secret_of_module = Keeper.secret = [secret]
        kept.set([secret])
        local = [secret]
        task = asyncio.create_task(hold(local), name=secret)
        await self.env.ECHO.fetch("http://echo/wait")
        task.cancel()
        return Response(str(os.getpid()))


async def hold(secret):
    asyncio.get_running_loop().call_later(1000, print, secret)
    await asyncio.sleep(1000)


async def search(roots):
    """Return at most five finds, each with the path to it from its root."""
    own = asyncio.get_running_loop()
    ways = [(name, each) for name, each in roots.items()]
    seen = {id(own_part) for own_part in (ways, POWERS, PLAIN)}
    held = [ways]
    found = []
    for index, (way, each) in enumerate(ways):
        if index % TURN == 0:
            await asyncio.sleep(0)
        kind = type(each)
        if kind.__name__ in POWERS and not isinstance(each, type):
            found.append(f"{way}: {kind.__name__}")
        elif kind.__name__ == "GuestLoop" and each is not own:
            found.append(f"{way}: another's event loop")
        elif kind.__name__ == "Mailbox" and each.loop is not own:
            found.append(f"{way}: another's mailbox")
        elif kind in (str, bytes) and len(each) == 40 and str(each).startswith("secret-"):
            found.append(f"{way}: another's secret")
        if len(ways) > OBJECTS_MAX or kind in PLAIN:
            continue
        for name, inner in steps(each):
            if id(inner) not in seen:
                seen.add(id(inner))
                held.append(inner)
                ways.append((f"{way}{name}", inner))
    return found[:5]


def steps(each):
    """Yield (path suffix, object) of everything that is one step away."""
    if isinstance(each, dict | types.MappingProxyType | contextvars.Context):
        for key, value in list(each.items()):
            yield f"[{key!r:.40}]", value
            yield f"({key!r:.40})", key
    elif isinstance(each, list | tuple | set | frozenset) or type(each).__name__ == "deque":
        for number, value in enumerate(list(each)):
            yield f"[{number}]", value
    if isinstance(each, weakref.ref):
        yield "()", each()
    if isinstance(each, type):
        for name, value in list(vars(each).items()):
            yield f".{name}", value
        if each is not type:
            for number, kind in enumerate(type.__subclasses__(each)):
                yield f".__subclasses__()[{number}]", kind
    for name in dir(each):
        try:
            yield f".{name}", getattr(each, name)
        except BaseException:  # noqa: BLE001, S112 (an attribute may raise anything)
            continue
    try:
        yield ".__reduce_ex__(2)", each.__reduce_ex__(2)
    except BaseException:  # noqa: BLE001, S110 (most cannot be reduced)
        pass


def read_channel():
    """Try to read, write and copy every descriptor that is a socket."""
    heard = []
    for fd in range(3, 64):
        try:
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                continue
        except OSError:
            continue
        for way in (
            lambda fd=fd: os.read(fd, 1),
            lambda fd=fd: os.readv(fd, [bytearray(1)]),
            lambda fd=fd: os.dup(fd),
            lambda fd=fd: os.dup2(fd, 60),
            lambda fd=fd: open(fd, "rb", buffering=0, closefd=False).read(1),
            lambda fd=fd: os.write(fd, b"x"),
            lambda fd=fd: os.writev(fd, [b"x"]),
        ):
            try:
                heard.append(str(way()))
            except PermissionError:
                heard.append("refused")
    return " ".join(heard)


ROOTS = {}


def root(function):
    async def roots(worker, request):
        found = function(worker, request)
        return await found if inspect.isawaitable(found) else found

    ROOTS[function.__name__.replace("_", "-")] = roots
    return function


@root
def planted(worker, request):
    """Another event loop, which the search must find."""
    loop = asyncio.get_running_loop()
    another = type(loop)(loop.mailbox)
    return {"function": lambda: [another]}


@root
def running_loop(worker, request):
    return {"loop": asyncio.get_running_loop()}


@root
def event_loop(worker, request):
    return {"loop": asyncio.get_event_loop(), "policy": asyncio.get_event_loop_policy()}


@root
def task_loop(worker, request):
    return {"task": asyncio.current_task(), "loop": asyncio.current_task().get_loop()}


@root
def future_loop(worker, request):
    future = asyncio.get_running_loop().create_future()
    future.add_done_callback(print)
    return {"future": future, "callbacks": future._callbacks, "loop": future.get_loop()}


@root
def handles(worker, request):
    loop = asyncio.get_running_loop()
    soon, later = loop.call_soon(int), loop.call_later(1, int)
    return {"soon": soon, "later": later, "ready": loop._ready, "scheduled": loop._scheduled}


@root
async def handler_context(worker, request):
    loop = asyncio.get_running_loop()
    got = loop.create_future()
    loop.set_exception_handler(lambda loop, context: got.set_result((loop, context)))
    loop.call_soon(lambda: 1 / 0)
    return {"handler": await got}


@root
def context_variables(worker, request):
    inside = contextvars.Context().run(contextvars.copy_context)
    return {"context": contextvars.copy_context(), "empty": inside, "current": current.get()}


@root
def frames(worker, request):
    return {"frame": sys._getframe(), **{str(n): each for n, each in enumerate(inspect.stack(0))}}


@root
async def frames_of_a_task(worker, request):
    async def inner():
        return sys._getframe()

    task = asyncio.create_task(inner())
    return {"frame": await task, "stack": task.get_stack(), "coroutine": task.get_coro()}


@root
async def frames_of_a_callback(worker, request):
    got = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(lambda: got.set_result(chain(sys._getframe())))
    return {"frames": await got}


@root
def frames_of_an_import(worker, request):
    sys.modules.pop("late", None)
    import late

    return {"frames": late.frames}


def chain(frame):
    """Return ``frame`` and its callers, each with a copy of its locals."""
    found = []
    while frame is not None:
        found.append((frame, dict(frame.f_locals)))
        frame = frame.f_back
    return found


@root
async def frames_of_an_attribute(worker, request):
    """Frames below a property that the platform reads when it encodes a value."""
    found = []

    class Evil:
        @property
        def __class__(self):
            found.append(chain(sys._getframe()))
            return Evil

    log = current.get().log.__func__.__globals__["Log"]
    current.get()._channel.send(log("log", [Evil()]))
    while not found:
        await asyncio.sleep(0)
    return {"frames": found}


@root
async def frames_of_a_destructor(worker, request):
    found = []

    class Evil:
        def __del__(self):
            found.append(chain(sys._getframe()))

    for _ in range(1000):
        evil = Evil()
        evil.itself = evil
    del evil
    for _ in range(20):
        [[] for _ in range(1000)]
        await asyncio.sleep(0)
    return {"frames": found[:3]}


@root
def current_coroutine(worker, request):
    coroutine = asyncio.current_task().get_coro()
    try:
        return {"coroutine": coroutine, "frame": coroutine.cr_frame}
    except PermissionError as error:
        return {"coroutine": coroutine, "error": error}


@root
async def traceback_of_a_binding(worker, request):
    try:
        await current.get().call("NONE", "method", [])
    except Exception as error:  # noqa: BLE001 (of any class)
        return {"error": error, "traceback": error.__traceback__}
    raise AssertionError("the call succeeded")


@root
def traceback_of_time_sleep(worker, request):
    found = {}
    for seconds in (-1, float("inf"), "evil"):
        try:
            time.sleep(seconds)
        except Exception as error:  # noqa: BLE001 (of any class)
            found[str(seconds)] = error
    return found


@root
def tasks_of_asyncio(worker, request):
    names = ("_all_tasks", "_scheduled_tasks", "_eager_tasks", "_current_tasks")
    found = {name: getattr(asyncio.tasks, name, None) for name in names}
    return {"all": asyncio.all_tasks(), **found, **all_of(found)}


def all_of(sets):
    return {
        f"{name} {n}": each for name, found in sets.items() for n, each in enumerate(found or ())
    }


@root
def asynchronous_generators(worker, request):
    return {"hooks": sys.get_asyncgen_hooks(), "loop": asyncio.get_running_loop()._asyncgens}


@root
def signal_handlers(worker, request):
    return {str(each): signal.getsignal(each) for each in signal.valid_signals()}


@root
def collector(worker, request):
    for find in (gc.get_objects, lambda: gc.get_referrers(asyncio), lambda: gc.get_referents(gc)):
        try:
            find()
        except PermissionError:
            continue
        raise AssertionError("the collector gives objects away")
    return {"garbage": gc.garbage, "callbacks": gc.callbacks}


@root
def modules_of_the_platform(worker, request):
    own = {name: each for name, each in sys.modules.items() if "edgesim" in name}
    assert not own
    real = current.get().log.__func__.__globals__["asyncio"].events.sys.modules
    return {name: each for name, each in real.items() if "edgesim" in name or name == "__main__"}


@root
def import_function(worker, request):
    return {"import": builtins.__import__, "json": json, "view": type(json).__getattr__}


@root
def binding_methods(worker, request):
    return {"env": worker.env, "echo": worker.env.ECHO, "fetch": worker.env.ECHO.fetch}


@root
def request_and_sdk(worker, request):
    return {"request": request, "workers": workers, "js": js, "worker": worker}


@root
def subclasses(worker, request):
    return {"object": object, "worker": WorkerEntrypoint, "real": type.__subclasses__(object)}


@root
def closures_of_the_library(worker, request):
    return {"time": time.time, "sleep": time.sleep, "all": asyncio.all_tasks, "out": sys.stdout}


@root
def console_streams(worker, request):
    return {"out": sys.stdout, "err": sys.stderr, "console": js.console}


@root
def threads_and_locals(worker, request):
    return {"threading": threading.enumerate(), "main": threading.main_thread()}


@root
def loggers_and_weak_references(worker, request):
    return {"root": logging.root, "refs": weakref.getweakrefs(Keeper), "abc": abc.ABCMeta}


@root
def environment_of_the_sdk(worker, request):
    return {"env": current_env.get(), "variable": current_env, "current": current}
