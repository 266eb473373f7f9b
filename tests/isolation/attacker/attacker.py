"""Worker that attacks: /attack/<name> does one kind of harm, /honest shows what is left of it.

A refused attack raises; an attack that should be refused but succeeds ends as "ok" and is detected.
"""

import asyncio
import atexit
import builtins
import codecs
import copy
import ctypes
import gc
import importlib
import inspect
import io
import json
import logging
import mmap
import os
import random
import re
import reprlib
import resource
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
import weakref

import arguments
import js
import planted
import sibling
import workers
from js import console
from workers import Response, WorkerEntrypoint

counter = 0
ATTACKS = dict(planted.ATTACKS)
HONEST_BODY = b"x" * 1000


class Mine:
    attribute = "clean"


def encodes(value):
    try:
        return len(json.dumps(value))
    except TypeError:
        return 0


def attack(function):
    ATTACKS[function.__name__.strip("_").replace("_", "-")] = function
    return function


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        path = request.url.split("/", 3)[3]
        if path == "honest":
            return Response(json.dumps(await self.honest(request), sort_keys=True))
        if path == "work":
            numbers = json.loads(await request.text())
            answer = await self.env.ECHO.fetch(
                "http://echo/", method="POST", body=json.dumps(numbers)
            )
            await asyncio.sleep(0)
            return Response(str(sum(json.loads(await answer.text()))))
        if path == "imports":
            for name in (
                "asyncio.subprocess concurrent.futures csv ctypes.util curses dataclasses decimal "
                "difflib doctest email.mime.text fractions http.server imaplib lzma mailbox "
                "multiprocessing.pool optparse pickle pydoc sqlite3 ssl statistics tarfile "
                "turtledemo unittest.mock urllib.request wsgiref.simple_server xml.dom.minidom "
                "xmlrpc.client zipfile zoneinfo"
            ).split():
                importlib.import_module(name)
            return Response("imported")
        if path == "churn":  # makes cycles for the garbage collector
            for _ in range(5000):
                cycle = []
                cycle.append(cycle)
            answer = await self.env.ECHO.fetch("http://echo/", method="POST", body="churned")
            return Response(await answer.text())
        if path == "count":
            return Response(str(len(await request.bytes())))
        if path == "slow":  # makes no call before it answers
            await asyncio.sleep(0.4)
            return Response(str(sum(json.loads("[1, 2]"))))
        if path == "pid":
            return Response(str(os.getpid()))
        if path == "ticks":  # a task that still runs adds loggers to this shared registry
            seen = len(logging.root.manager.loggerDict)
            await asyncio.sleep(0.1)
            return Response(str(seen))
        if path == "draw":
            return Response(str(random.getrandbits(64)))
        if path == "calling":  # its call is made before the attack does harm
            await self.env.ECHO.fetch("http://echo/first")
            await asyncio.sleep(0.4)
            return Response("called")
        if path == "lock":
            lock = threading.Lock()
            lock.acquire()
            lock.acquire()
        done = ATTACKS[path.removeprefix("attack/")](self, request)
        if inspect.isawaitable(done):
            done = await done
        return done if isinstance(done, Response) else Response(str(done))

    async def honest(self, request):
        """Return all state that an attack may have changed."""
        global counter
        counter += 1
        sibling.seen.append(counter)
        answer = await self.env.ECHO.fetch("http://echo/", method="POST", body=HONEST_BODY)
        loop = asyncio.get_running_loop()
        return {
            "globals": [counter, sibling.seen, Mine.attribute],
            "echo": len(await answer.bytes()),
            "body": len(await request.bytes()),
            "builtins": [len("abc"), repr(builtins.len), hasattr(builtins, "evil")],
            "library": [json.dumps([1]), repr(json.dumps), hasattr(json, "evil")],
            "classes": [repr(json.JSONEncoder.default), json.loads('{"a": 1}'), json.dumps({1: 2})],
            "late": getattr(getattr(sys.modules.get("csv"), "Dialect", None), "delimiter", None),
            "modules": ["evil" in sys.modules, sys.modules["json"] is json],
            "environ": sorted(os.environ),
            "path": sys.path,
            "interpreter": [sys.getrecursionlimit(), gc.isenabled(), sys.gettrace() is None],
            "signals": [repr(signal.getsignal(each)) for each in (signal.SIGTERM, signal.SIGINT)],
            "threads": threading.active_count(),
            "policy": type(asyncio.get_event_loop_policy()).__name__,
            "loop": [loop.get_task_factory() is None, "call_soon" in vars(loop), loop.get_debug()],
            "logging": [logging.root.level, len(logging.root.handlers), logging.root.disabled],
            "registries": [logging.getLevelName(25), repr(copy.copy(...)), reprlib.repr("a" * 40)],
            "functions": [json.dumps.__dict__, json.loads.__kwdefaults__],
            "stand-ins": self.stand_ins(),
            "objects": self.objects(),
            "methods": json.JSONEncoder.default.__code__.co_argcount + encodes({1}),
            "codecs": self.finds("evil"),
            "files": self.can_open(),
            "sdk": [repr(workers.fetch).split(" at ")[0], "fetch" in vars(WorkerEntrypoint)],
            "console": [sorted(vars(console)) if hasattr(console, "__dict__") else []],
            "env": [self.env.TEXT, self.env.JSON.to_py(), sorted(vars(self.env))],
            "umask": os.getcwd(),
            "planted": planted.seen(),
        }

    @staticmethod
    def stand_ins():
        """Return the state of functions that the platform has put in place of the library's."""
        library = os.path.dirname(json.__file__)
        with open("/tmp/honest", "wb", buffering=0) as file:
            defaults = type(file).__init__.__kwdefaults__
        seen = [sorted(os.listdir(library)), os.stat.__kwdefaults__, time.time() > 1e6]
        return [*seen, sorted(vars(open)), defaults]

    @staticmethod
    def objects():
        """Return the state of objects that modules of the interpreter refer to."""
        containers = [os.sysconf_names, sys.warnoptions, gc.garbage, vars(builtins.help)]
        functions = [os.environ.encodevalue, sys.stdout.write]
        return [len(os.supports_fd), repr(containers), [each.__qualname__ for each in functions]]

    @staticmethod
    def finds(codec):
        try:
            return codecs.lookup(codec).name
        except LookupError:
            return None

    @staticmethod
    def can_open():
        """Return 8 if so many descriptors are free, enough to import a module; else raise OSError."""
        opened = []
        try:
            opened += [os.dup(2) for _ in range(8)]
        finally:
            for each in opened:
                os.close(each)
        return len(opened)


for each in arguments.TRIES:
    ATTACKS[each] = lambda worker, request, name=each: arguments.attempt(name)


# --- what reused modules would show ---


def changes_later():
    global counter
    counter = 1000
    sibling.seen.append("evil")
    Mine.attribute = "evil"


@attack
def own_functions(worker, request):
    encodes.__code__ = (lambda value: 1000).__code__
    changes_later.__globals__["counter"] = 1000
    Default.honest.__defaults__ = ("evil",)
    Default.__call__ = changes_later


@attack
def leftover_destructor(worker, request):
    class Haunted:
        def __del__(self):
            changes_later()

    haunted = Haunted()
    haunted.cycle = haunted


@attack
def leftover_generator(worker, request):
    def generator():
        try:
            yield
        finally:
            changes_later()

    running = generator()
    next(running)
    cycle = [running]
    cycle.append(cycle)


@attack
def leftover_reference(worker, request):
    cycle = [weakref.ref(Mine, lambda _: changes_later())]
    cycle.append(cycle)
    Mine.attribute = "evil"
    Mine.attribute = "clean"


# --- state that the invocations of a process share ---


@attack
def module_globals(worker, request):
    global counter
    counter = 1000
    sibling.seen.append("evil")


@attack
def own_class(worker, request):
    Mine.attribute = "evil"
    Default.honest = None


@attack
def library_class(worker, request):
    json.JSONEncoder.default = lambda *_: "evil"


@attack
def library_class_imported_late(worker, request):
    import csv

    csv.Dialect.delimiter = "evil"


@attack
def library_function(worker, request):
    json.dumps = lambda *_: "evil"
    json.evil = True


@attack
def library_by_a_side_door(worker, request):
    module = importlib.__import__("json")
    module.dumps = lambda *_, **__: "evil"
    inspect.getmodule(json.loads).evil = True


@attack
def library_by_the_library(worker, request):
    import unittest.mock

    unittest.mock.patch("json.dumps", lambda *_, **__: "evil").start()


@attack
def patched_builtins(worker, request):
    builtins.len = lambda _: 7
    builtins.evil = True


@attack
def sys_modules(worker, request):
    sys.modules["evil"] = sys.modules.pop("json")


@attack
def environ(worker, request):
    os.environ["EVIL"] = "1"


@attack
def import_path(worker, request):
    sys.path.insert(0, "/evil")


@attack
def interpreter(worker, request):
    gc.disable()
    sys.setrecursionlimit(5000)


@attack
def signal_handlers(worker, request):
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)


@attack
def at_exit(worker, request):
    atexit.register(os.write, channel(), b"\xff" * 8)


@attack
def thread(worker, request):
    threading.Thread(target=time.sleep, args=(5,)).start()


@attack
def leftover_task(worker, request):
    async def haunt():
        while True:
            console.log("haunting")
            builtins.evil = True
            await asyncio.sleep(0.001)

    asyncio.create_task(haunt())  # noqa: RUF006


@attack
def asyncio_policy(worker, request):
    class Evil(asyncio.DefaultEventLoopPolicy):
        pass

    asyncio.set_event_loop_policy(Evil())


@attack
def event_loop(worker, request):
    loop = asyncio.get_running_loop()
    loop.set_task_factory(lambda loop, work, **_: asyncio.Task(work, loop=loop))
    loop.set_debug(True)


@attack
def loop_method(worker, request):
    loop = asyncio.get_running_loop()
    real = loop.call_soon
    loop.call_soon = lambda *a, **k: real(*a, **k)


@attack
def loop_stopped(worker, request):
    asyncio.get_running_loop().stop()


@attack
def sdk_function(worker, request):
    async def evil(*_, **__):
        return Response("evil")

    workers.fetch = evil
    js.console = None


@attack
def sdk_class(worker, request):
    WorkerEntrypoint.fetch = None


@attack
def sdk_console(worker, request):
    console.log = lambda *_: None


@attack
def env(worker, request):
    worker.env.TEXT = "evil"
    worker.env.EVIL = "evil"


@attack
def env_json(worker, request):
    worker.env.JSON.to_py()["list"].append("evil")
    worker.env.JSON.list.to_py().append("evil")
    worker.env.JSON.list = ["evil"]


@attack
def env_binding(worker, request):
    worker.env.ECHO.fetch = None


@attack
def logging_configured(worker, request):
    logging.basicConfig(level=1, force=True)
    logging.disable(logging.CRITICAL)
    logging.root.disabled = True


@attack
def library_registries(worker, request):
    import copyreg
    import reprlib

    logging.addLevelName(25, "EVIL")
    copyreg.pickle(type(Ellipsis), lambda value: "evil")
    reprlib.aRepr.maxstring = 1


@attack
def library_function_attribute(worker, request):
    json.dumps.evil = True
    json.loads.__kwdefaults__["cls"] = None


def evil_in_closure(function, replacement):
    for cell in function.__closure__:
        if callable(cell.cell_contents):
            cell.cell_contents = replacement


@attack
def stand_in_closure(worker, request):
    evil_in_closure(os.listdir, lambda *_, **__: ["evil"])
    evil_in_closure(os.dup, lambda *_, **__: 2)
    evil_in_closure(time.time, lambda: 0.0)


@attack
def stand_in_attribute(worker, request):
    open.evil = True
    os.stat.__kwdefaults__["dir_fd"] = 2


@attack
def platform_defaults(worker, request):
    with open("/tmp/evil", "wb", buffering=0) as file:
        type(file).__init__.__kwdefaults__["closes"] = "evil"


@attack
def interpreter_objects(worker, request):
    os.supports_fd.clear()
    os.sysconf_names["evil"] = 1
    os.environ.encodevalue = lambda _: b"evil"
    sys.warnoptions.append("evil")
    sys.stdout.write = lambda text: len(text)
    gc.garbage.append("evil")
    builtins.help.evil = True


@attack
def codec_registered(worker, request):
    import codecs

    codecs.register(lambda name: codecs.lookup("utf-8") if name == "evil" else None)


@attack
def audit_hook(worker, request):
    heard = []
    sys.addaudithook(lambda event, args: heard.append(event))  # a refusal raises nothing
    sys.audit("evil")
    if not heard:
        raise PermissionError("the hook was not added")


@attack
async def all_tasks_cancelled(worker, request):
    own = asyncio.create_task(asyncio.sleep(60))
    for task in asyncio.all_tasks():
        if task is not asyncio.current_task():
            task.cancel()
    try:
        await own
    except asyncio.CancelledError:
        return len(asyncio.all_tasks())


@attack
def generator_exit(worker, request):
    raise GeneratorExit


@attack
async def generator_exit_in_a_task(worker, request):
    async def leave():
        raise GeneratorExit

    await asyncio.create_task(leave())


@attack
def descriptors_leaked(worker, request):
    count = 0
    try:
        while True:
            os.dup(2)
            count += 1
    except OSError:
        return count


@attack
def page_grown(worker, request):
    for number in range(3, 64):
        try:
            if stat.S_ISREG(os.fstat(number).st_mode):
                os.lseek(number, 0, os.SEEK_END)
                os.write(number, bytes(1 << 20))
        except OSError as error:
            if error.errno not in {9, 27, 1}:  # EBADF, EFBIG, EPERM
                raise
        else:
            assert not stat.S_ISREG(os.fstat(number).st_mode), number


@attack
def exception_that_raises(worker, request):
    class Evil(Exception):
        @property
        def __traceback__(self):
            raise SystemExit

        __class__ = __cause__ = __context__ = __notes__ = __traceback__

    raise Evil


@attack
def random_seeded(worker, request):
    random.seed(1)
    return random.getrandbits(64)


@attack
def function_globals(worker, request):
    """Change a library's names through a function's globals, which only deliberate code does."""
    json.loads.__globals__["dumps"] = lambda *_, **__: "evil"


@attack
def objects_by_the_collector(worker, request):
    for each in gc.get_referents(json.loads):
        if isinstance(each, dict) and "JSONEncoder" in each:
            each["dumps"] = lambda *_, **__: "evil"


@attack
def library_method(worker, request):
    json.JSONEncoder.default.__code__ = (lambda self, o: "evil").__code__


# --- CPU ---


@attack
def busy_loop(worker, request):
    while True:
        pass


@attack
def busy_in_c(worker, request):
    return sum(range(10**12))


@attack
def busy_regex(worker, request):
    return re.match(r"(a+)+$", "a" * 60 + "b")


@attack
def busy_and_deaf(worker, request):
    """Catch the exception of the CPU limit every time."""
    while True:
        try:
            while True:
                pass
        except BaseException:  # noqa: S110
            pass


@attack
def busy_timer_disarmed(worker, request):
    for disarm in (
        lambda: signal.setitimer(signal.ITIMER_PROF, 0),
        lambda: signal.setitimer(signal.ITIMER_VIRTUAL, 0),
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()),
    ):
        try:
            disarm()
        except OSError:
            pass
    while True:
        pass


@attack
def timer_disarmed(worker, request):
    signal.setitimer(signal.ITIMER_PROF, 0)


@attack
def signals_masked(worker, request):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPROF, signal.SIGVTALRM})
    while True:
        pass


@attack
def timers_without_python(worker, request):
    """Call setitimer, alarm and timer_create as bare system calls."""
    syscall(38, signal.ITIMER_PROF, bytes(32), 0)
    syscall(37, 0)
    syscall(222, 0, 0, ctypes.create_string_buffer(8))
    refused(ctypes.get_errno())


@attack
async def busy_in_steps(worker, request):
    while True:
        await asyncio.sleep(0)


@attack
async def busy_tasks(worker, request):
    async def breed():
        asyncio.ensure_future(breed())
        asyncio.ensure_future(breed())

    await asyncio.gather(breed())
    await asyncio.sleep(3600)


@attack
def busy_after_response(worker, request):
    async def later():
        while True:
            pass

    worker.ctx.waitUntil(later())
    return "answered"


@attack
def death_after_response(worker, request):
    async def later():
        os._exit(1)

    worker.ctx.waitUntil(later())
    return "answered"


@attack
def time_sleep(worker, request):
    time.sleep(0.3)


@attack
async def ticking(worker, request):
    while True:
        await asyncio.sleep(0.01)
        logging.getLogger(f"tick {random.random()}")


@attack
async def speaks_from_the_grave(worker, request):
    """Leave code that the garbage collector could run in the name of another invocation."""

    class Late:
        def __del__(self):
            console.log("haunting")

    late = Late()
    late.itself = late
    try:
        await asyncio.Event().wait()
    except BaseException:
        console.log("haunting")
        raise


@attack
async def never_answers(worker, request):
    await asyncio.Event().wait()


@attack
def exit_in_wait_until(worker, request):
    async def later():
        raise SystemExit(1)

    worker.ctx.waitUntil(later())


@attack
async def exit_in_a_task(worker, request):
    async def later():
        raise SystemExit(1)

    task = asyncio.create_task(later())
    await asyncio.wait([task])


@attack
def cancellation_swallowed(worker, request):
    async def later():
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass

    worker.ctx.waitUntil(later())


# --- memory ---


@attack
def memory_in_one_block(worker, request):
    return bytearray(1 << 30)[-1]


@attack
def memory_in_many(worker, request):
    held = []
    while True:
        held.append(bytes(10_000))


@attack
def memory_and_deaf(worker, request):
    held = []
    while True:
        try:
            while True:
                held.append(bytearray(1_000_000))
        except MemoryError:
            pass


@attack
def memory_mapped(worker, request):
    held = mmap.mmap(-1, 1 << 30)
    held[:: 1 << 12] = bytes(1 << 18)


@attack
def recursion(worker, request):
    def down():
        down()

    down()


@attack
def stack_exhausted(worker, request):
    sys.setrecursionlimit(10**9)

    class Deep:
        def __repr__(self):
            return repr(self)

    return repr(Deep())


# --- process exit and new processes ---


@attack
def os_exit(worker, request):
    os._exit(0)


@attack
def segfault(worker, request):
    ctypes.string_at(0)


@attack
def abort(worker, request):
    os.abort()


@attack
def kill_itself(worker, request):
    os.kill(os.getpid(), signal.SIGKILL)


@attack
def kill_parent(worker, request):
    os.kill(another(), signal.SIGKILL)


@attack
def kill_everyone(worker, request):
    os.kill(-1, signal.SIGKILL)


@attack
def fork_bomb(worker, request):
    while True:
        os.fork()


@attack
def run_a_program(worker, request):
    subprocess.run(["/bin/true"], check=True)


@attack
def become_a_program(worker, request):
    os.execv("/bin/true", ["true"])


@attack
def program_from_memory(worker, request):
    os.fexecve(os.memfd_create("evil"), ["evil"]) if hasattr(os, "fexecve") else os.memfd_create(
        "e"
    )


@attack
def thread_without_python(worker, request):
    """Start threads and processes by bare system calls."""
    for number, *args in ((56, 0x100 | 0x200 | 17, 0), (435, 0, 88), (57,), (58,)):
        syscall(number, *args)
    refused(ctypes.get_errno())


@attack
def raised_limits(worker, request):
    resource.setrlimit(resource.RLIMIT_CPU, (3600, resource.RLIM_INFINITY))


@attack
def raised_limits_without_python(worker, request):
    limit = struct.pack("QQ", 1 << 40, 1 << 40)
    syscall(302, 0, resource.RLIMIT_AS, limit, 0)
    syscall(160, resource.RLIMIT_AS, limit)
    refused(ctypes.get_errno())


# --- memory of other processes ---


@attack
def ptrace_a_sibling(worker, request):
    syscall(101, 16, another(), 0, 0)
    refused(ctypes.get_errno())


@attack
def memory_of_another(worker, request):
    open(f"/proc/{another()}/mem", "rb")


@attack
def memory_of_another_by_call(worker, request):
    buffer = ctypes.create_string_buffer(16)
    vector = struct.pack("QQ", ctypes.addressof(buffer), 16)
    syscall(310, another(), vector, 1, vector, 1, 0)
    refused(ctypes.get_errno())


# --- files, sockets, terminal ---


@attack
def read_passwords(worker, request):
    return open("/etc/passwd").read()


@attack
def read_ssh_keys(worker, request):
    return os.listdir(os.path.expanduser("~/.ssh"))


@attack
def read_the_project(worker, request):
    """Read a file beside the Worker's folder, which is not the Worker's own."""
    return open(os.path.join(os.path.dirname(os.path.dirname(__file__)), "table.py")).read()


@attack
def read_the_hidden(worker, request):
    """Read a file of the Worker's own folder whose name begins with a dot."""
    return open(os.path.join(os.path.dirname(__file__), ".hidden")).read()


@attack
def environment_of_the_platform(worker, request):
    return open(f"/proc/{another()}/environ").read()


@attack
def write_its_own_source(worker, request):
    open(__file__, "a").close()


@attack
def write_anywhere(worker, request):
    import posix

    paths = [
        os.path.join(each, "evil")
        for each in ("/dev/shm", "/var/tmp", os.path.expanduser("~"), ".")
    ]
    for path in (*paths, "/tmp/../dev/shm/evil", "/proc/self/cwd/evil"):
        for opened in (open, lambda path, _: os.open(path, os.O_WRONLY | os.O_CREAT)):
            try:
                opened(path, "w")
            except OSError:
                continue
            return "written"
    # The real functions, past the folder in memory.
    for path in (*paths, "/tmp/evil"):
        for opened in (io.FileIO, lambda path, _: posix.open(path, os.O_WRONLY | os.O_CREAT)):
            try:
                opened(path, "w")
            except OSError:
                continue
            return "written"
    raise PermissionError


@attack
def write_files_without_end(worker, request):
    for number in range(1 << 40):
        with open(f"/tmp/{number}", "wb") as file:
            file.write(bytes(1 << 20))


@attack
def write_empty_files_without_end(worker, request):
    for number in range(1 << 40):
        os.mkdir(f"/tmp/{number}")


@attack
def another_file_system(worker, request):
    import posix

    from workers._runtime import current

    reached = []

    class Files:
        def __getattr__(self, name):
            frame = sys._getframe()
            while frame is not None:
                if type(frame.f_locals.get("self")).__name__ == "_Hook":
                    reached.append(frame.f_locals["self"])
                frame = frame.f_back
            raise PermissionError(name)

    current.get().files = Files()
    for opened in (posix.open, os.open):
        try:
            opened("/tmp/evil", os.O_RDONLY)
        except (FileNotFoundError, PermissionError):
            continue
        return "opened"
    if reached:
        return "reached"
    raise PermissionError


@attack
def remove_its_own_source(worker, request):
    os.remove(__file__)


@attack
def symbolic_link(worker, request):
    os.symlink("/etc/passwd", os.path.join(os.path.dirname(__file__), "link"))


@attack
def change_folder(worker, request):
    os.chdir("/etc")


@attack
def tcp_socket(worker, request):
    socket.create_connection(("127.0.0.1", 22), 1)


@attack
def unix_socket(worker, request):
    socket.socket(socket.AF_UNIX).connect("/run/docker.sock")


@attack
def dns(worker, request):
    """Look up a host name, the usual way to exfiltrate data through a name server."""
    socket.gethostbyname("example.com")


@attack
def namespaces(worker, request):
    syscall(272, 0x10000000)
    refused(ctypes.get_errno())


@attack
def io_uring(worker, request):
    """Set up a request ring, whose requests the kernel runs past the system-call filter."""
    syscall(425, 8, ctypes.create_string_buffer(120))
    refused(ctypes.get_errno())


@attack
def type_on_the_terminal(worker, request):
    import fcntl
    import termios

    for fd in (0, 1, 2):
        try:
            fcntl.ioctl(fd, termios.TIOCSTI, b"x")
        except OSError as error:
            if error.errno != 1:
                raise
        else:
            return "typed"
    raise PermissionError


@attack
def terminal_escapes(worker, request):
    os.write(1, b"\x1b[2J\x1b]0;evil\x07")
    os.write(2, b"\x1b[2J\x1b]0;evil\x07\n")
    console.log("\x1b[2J")


@attack
def stderr_flood(worker, request):
    for _ in range(1000):
        os.write(2, b"evil\n" * 1000)


# --- the channel ---


@attack
def closed_descriptors(worker, request):
    os.closerange(0, 64)


@attack
def garbage(worker, request):
    os.write(channel(), b"garbage, and more of it")


@attack
def frame_of_2_gb(worker, request):
    os.write(channel(), struct.pack(">I", 2 << 30) + b"x")


@attack
def half_a_frame(worker, request):
    os.write(channel(), struct.pack(">I", 1000) + b"x")
    while True:
        pass


@attack
def wrong_frames(worker, request):
    """Send frames that only the platform or a zygote may send."""
    Exited, Forked = of_the_wire("Exited", "Forked")

    say((number(), Forked(1, 1)), (0, Exited(1, 0, 0, 0)))


@attack
def two_responses(worker, request):
    Respond = of_the_wire("Respond")[0]

    say((number(), Respond(200, [], b"first")), (number(), Respond(201, [], b"second")))


@attack
def two_ends(worker, request):
    Call, Done, Log, Respond = of_the_wire("Call", "Done", "Log", "Respond")

    echo = Call(
        1, "ECHO", "fetch", [{"method": "GET", "url": "http://x", "headers": [], "body": 0}]
    )
    say(
        (number(), Respond(200, [], b"first")),
        (number(), Done()),
        (number(), Done("exception")),
        (number(), Log("log", ["after the end"])),
        (number(), echo),
    )


@attack
def end_of_another(worker, request):
    Done = of_the_wire("Done")[0]

    say(*((each, Done()) for each in range(1, 100) if each != number()))


@attack
def invented_outcome(worker, request):
    Done = of_the_wire("Done")[0]

    say((number(), Done("evil" * 1000)))


@attack
def response_of_wrong_types(worker, request):
    """Send a number as the body, from which ``bytes`` would allocate that many bytes."""
    Respond = of_the_wire("Respond")[0]

    say((number(), Respond(200, [], 10**11)))


@attack
def response_of_no_status(worker, request):
    Respond = of_the_wire("Respond")[0]

    say((number(), Respond(-1, [], b"")))


@attack
def wake_of_wrong_types(worker, request):
    Call = of_the_wire("Call")[0]

    say((0, Call(1, "", "sleepUntil", ["soon"])))


@attack
def call_of_wrong_types(worker, request):
    Call = of_the_wire("Call")[0]

    say(*((number(), Call(each, "ECHO", "fetch", [each])) for each in range(5)))


@attack
def log_of_wrong_types(worker, request):
    Log = of_the_wire("Log")[0]

    say((number(), Log("evil", [{"a": 1}], float("inf"))))


@attack
def nested_in_a_frame(worker, request):
    frame = b"\x91" * 5000 + b"\x90"
    write(struct.pack(">I", len(frame)) + frame)


@attack
def expanding_frame(worker, request):
    """Send a frame of one-byte objects; each takes ninety times its size when decoded."""
    count = 100 << 20
    head = bytes(one_call([None]))[4:]
    at = head.rindex(b"\xc0")
    start = head[:at] + b"\xdd" + struct.pack(">I", count)
    write(struct.pack(">I", len(start) + count + len(head) - at - 1) + start)
    for _ in range(100):
        write(b"\x80" * (1 << 20))
    write(head[at + 1 :])
    time.sleep(5)


def empty_lists(before, count, after):
    """Write a message with ``count`` empty lists, made without them: that would cost CPU time."""
    start = before + b"\xdd" + struct.pack(">I", count)
    write(struct.pack(">I", len(start) + count + len(after)) + start + b"\x90" * count + after)


@attack
def crowded_calls(worker, request):
    """Send calls of many small values, each in a message that is just not too heavy."""
    head = bytes(one_call([None]))[4:]
    at = head.rindex(b"\xc0")
    for _ in range(5):
        empty_lists(head[:at], 500_000, head[at + 1 :])


@attack
def crowded_logs(worker, request):
    """Send console lines of many small values."""
    Log, one = of_the_wire("Log", "one")

    head = bytes(one(Log("log", [None], 0.0), number()))[4:]
    at = head.rindex(b"\xc0")
    for _ in range(5):
        empty_lists(head[:at], 500_000, head[at + 1 :])


@attack
async def unread_responses(worker, request):
    """Fetch responses of 80 MB altogether and read none of them."""
    body = b"x" * 4_000_000
    kept = []
    for _ in range(20):
        kept.append(await worker.env.ECHO.fetch("http://echo/", method="POST", body=body))
    assert len(kept) == 20


@attack
def asks_and_never_reads(worker, request):
    """Send calls without reading replies; each reply is ten times as long as its call."""
    Call, FrameBatch, encode = of_the_wire("Call", "FrameBatch", "encode")

    asked = encode(FrameBatch([(number(), Call(1, "", "read", [99]))] * 100))
    for _ in range(1000):
        write(asked)


@attack
def calls_without_end(worker, request):
    """Send 20,000 calls that wait for ever."""
    Call = of_the_wire("Call")[0]

    for _ in range(20):
        say(*((number(), Call(each, "", "sleepUntil", [1e12])) for each in range(1000)))
    time.sleep(5)


@attack
async def half_characters(worker, request):
    half = "\ud800"
    print(half)
    console.log(half)
    sys.stderr.write(half + "\n")
    answer = await worker.env.ECHO.fetch("http://echo/" + half, method="POST", body=half)
    assert await answer.text() == "\ufffd"
    raise ValueError(half)


@attack
def console_of_objects(worker, request):
    from pyodide.ffi import to_js

    console.log(to_js({"a": object(), "b": [worker]}), to_js([{1, 2}]), object(), 1 << 80, worker)


@attack
def console_past_the_sdk(worker, request):
    from workers._runtime import invocation

    deep = []
    for _ in range(10_000):
        deep = [deep]
    invocation().log("log", [object(), deep, {(1,): 2}, b"", float("nan")])


@attack
def log_flood(worker, request):
    for _ in range(1_000_000):
        print("x" * 100)


@attack
def log_flood_of_nothing(worker, request):
    for _ in range(20_000):
        print()


@attack
def log_flood_raw(worker, request):
    Log = of_the_wire("Log")[0]

    for _ in range(200):
        say(*((number(), Log("log", ["x" * 1000])) for _ in range(1000)))


@attack
def wake_flood(worker, request):
    Call = of_the_wire("Call")[0]

    for _ in range(100):
        say(*((0, Call(each, "", "sleepUntil", [1e12])) for each in range(1000)))


@attack
async def stream_of_another(worker, request):
    """Read bodies by guessed handles, which are small numbers."""
    from workers._runtime import invocation

    for number in range(2, 20):
        await invocation().call("", "read", [number])


@attack
async def too_many_subrequests(worker, request):
    for _ in range(60):
        await asyncio.gather(*(worker.env.ECHO.fetch("http://echo/") for _ in range(10)))


def syscall(number, *args):
    """Make a system call of x86-64 by its number; raise SystemError if it succeeds."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(ctypes.c_long(number), *args) >= 0:
        raise SystemError(f"system call {number} succeeded")


def another():
    """Return another process's PID: the zygote, or the first of the namespace that hides it."""
    return os.getppid() or 1


def refused(number):
    raise PermissionError(number, os.strerror(number))


def channel():
    """Return the descriptor of the isolate's only socket."""
    return next(fd for fd in range(3, 64) if is_socket(fd))


def is_socket(fd):
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False


def of_the_wire(*names):
    """Return the named classes of the wire protocol, which worker code cannot import."""
    from workers._runtime import invocation

    real = invocation().log.__func__.__globals__["asyncio"].events.sys.modules
    return [getattr(real["edgesim.isolates.protocol.wire"], name) for name in names]


def number():
    """Return the invocation's number, or 1 as a guess where it is out of reach."""
    from workers._runtime import invocation

    return getattr(invocation()._channel, "_invocation", 1)


def say(*frames):
    """Write frames to the channel, past the SDK."""
    FrameBatch, encode = of_the_wire("FrameBatch", "encode")

    write(encode(FrameBatch(list(frames))))


def one_call(args):
    """Return an encoded call of a binding."""
    Call, one = of_the_wire("Call", "one")

    return one(Call(1, "ECHO", "fetch", args), number())


def write(data):
    """Write all data to the channel."""
    data = memoryview(data)
    where = channel()
    while data:
        data = data[os.write(where, data) :]
