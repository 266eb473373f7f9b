"""Guards around worker code, installed by its zygote before it imports any of the Worker's modules.

The kernel's jail (``edgesim.jail``), if available: Landlock for files, seccomp for the rest.
Python's audit hook is the second layer: in global scope it raises the platform's errors, and if a
part of the kernel's jail is missing, it refuses the same operations of Python code.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
import sysconfig
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from contextvars import Context
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

from workers._runtime import GLOBAL_SCOPE

from edgesim.isolates.guest.clock_and_random import in_global_scope
from edgesim.isolates.guest.sealed import sealed
from edgesim.isolates.protocol.limits import KERNEL_GUARDS
from edgesim.jail import landlock, seccomp
from edgesim.system import LINUX

KERNEL, AUDIT = "kernel", "audit"
LANDLOCK, SECCOMP = KERNEL_GUARDS
HOOK = "audit hook"

FILES_MAX = 64
"""Maximum file descriptors of an isolate: its channel, and modules that are being read."""
CORE_BYTES_MAX = 0
CPU_SLACK_SECONDS = 2
"""RLIMIT_CPU counts whole seconds; it backs up the timer, which worker code can stop without
seccomp."""

CPU_GRACE_SECONDS = 0.1
"""CPU time from the exception, which worker code can catch, to the signal that ends the process."""

_OF_OTHERS = (
    "_thread.start", "ctypes.", "fcntl.", "ftplib.", "os.exec", "os.fork", "os.kill",
    "os.posix_spawn", "os.spawn", "os.startfile", "os.system", "pty.spawn", "resource.",
    "signal.", "smtplib.", "socket.", "sqlite3.", "subprocess.", "syslog.", "webbrowser.",
)  # fmt: skip
"""Prefixes of audit events of operations that an isolate may not use."""
_OF_FILES = (
    "os.chdir", "os.chflags", "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove",
    "os.rename", "os.rmdir", "os.symlink", "os.truncate", "os.utime",
)  # fmt: skip
_OF_OBJECTS = {
    "cpython.PyInterpreterState_New",  # an interpreter of its own would have no hook
    *("gc.get_objects", "gc.get_referrers", "gc.get_referents"),
}
"""Audit events of functions that find any object, also those of other invocations."""
_FRAMES = {"sys._getframe", "sys._current_frames", "sys._current_exceptions"}
_TRACING = {"sys.settrace", "sys.setprofile", "sys.monitoring.register_callback"}
"""A tracer is given every frame of the process, the scheduler's and other invocations' too."""
_ASYNCGEN_HOOKS = {
    f"sys.set_asyncgen_{name}_{which}"  # the documentation's names and the interpreter's
    for name in ("hook", "hooks")
    for which in ("firstiter", "finalizer")
}
"""Such a hook runs on top of the frames of any invocation that uses a generator."""
_SEEING = _OF_OBJECTS | _TRACING | _ASYNCGEN_HOOKS
_JUDGED = _SEEING | _FRAMES | {"object.__getattr__", "object.__setattr__"}
_FRAME_ATTRIBUTES = {"tb_frame", "gi_frame", "cr_frame", "ag_frame"}
_FUNCTION_PARTS = {"__code__", "__defaults__", "__kwdefaults__"}
_PLATFORM_FOLDER = str(Path(__file__).parents[2]) + os.sep
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


_SIGNALS = signal.valid_signals()
_sealing: seccomp.Program | None = None
_hook: _Hook | None = None


def put_on(
    wanted: str, folders: Iterable[str], listed: Sequence[str], memory_bytes: int
) -> list[str]:
    """Guard this process and its forks irrevocably; return the active guards.

    Afterwards only ``folders`` and Python's own library are readable.  In the folders ``listed``
    only the names of the entries can be read.
    """
    global _sealing, _hook  # noqa: PLW0603 (compiled here, once; a fork only installs it)
    readable = [*folders, *_library()]
    sys.dont_write_bytecode = True  # writing is refused, by the hook or by the kernel
    resource.setrlimit(resource.RLIMIT_CORE, (CORE_BYTES_MAX, CORE_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES_MAX, FILES_MAX))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    _limit_memory(memory_bytes)
    guards = []
    if wanted == KERNEL and landlock.restrict(readable, listed=listed):
        guards.append(LANDLOCK)
    if wanted == KERNEL and seccomp.available():
        _sealing = seccomp.isolate_program()
        seccomp.zygote_program().put_on()
        guards.append(SECCOMP)
    if len(guards) < 2:
        guards.append(HOOK)
    _hook = _Hook(guards, readable, listed)
    sys.addaudithook(_hook)
    return guards


def holds_processes() -> bool:
    """Return True if the kernel (not only the hook) refuses threads, signal handlers and timers."""
    return _sealing is not None


def fork() -> int:
    """Call ``os.fork`` for the zygote itself; code left behind by an import may not use it.

    Until it is sealed, the fork runs edgesim's code only.  OSError if the system has no process.
    """
    assert _hook is not None
    # A signal handler left behind by an import must not run while the hook allows everything.
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    pid = -1
    try:
        _hook.busy = True
        pid = os.fork()
    finally:
        _hook.in_zygote = pid != 0
        _hook.busy = pid == 0
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
    return pid


class Gates(NamedTuple):
    """Control over the hook, which only the scheduler of a fork for many invocations has."""

    suspended: Callable[[], AbstractContextManager[None]]
    """Let edgesim's own code use ``ctypes``; worker code that runs meanwhile gains no more."""
    objects: Callable[[], list[Any]]
    """``gc.get_objects``; the caller must not pass the result to worker code."""
    referents: Callable[..., list[Any]]
    """``gc.get_referents``; likewise."""
    frames_shut: Callable[[], AbstractContextManager[None]]
    """Refuse access to frames."""
    shut_frames: Callable[[bool], bool]
    """Refuse (True) or allow (False) access to frames; returns the previous setting."""
    seal: Callable[[int, Callable[[], None]], int | None]
    """Refuse processes, threads, timers, signal handlers and access to other invocations.

    Takes the channel's file descriptor, and a function that exits the process if a platform name
    was replaced.  Returns the key that the kernel requires from now on for each use of the channel;
    None without seccomp.
    """


class _Suspension:
    """A context in which the hook allows more, or less; it shows nothing of the hook."""

    def __init__(self, suspend: Callable[[bool], bool]) -> None:
        self._suspend = suspend
        self._before = False

    def __enter__(self) -> None:
        self._before = self._suspend(True)

    def __exit__(self, *_: object) -> None:
        self._suspend(self._before)


def take_gates() -> Gates:
    """Return the control over the hook of a fork for many invocations, and remove it here.

    It must not stay in this module: worker code can reach the names of a module.
    """
    global _hook
    hook, _hook = _hook, None
    assert hook is not None
    suspended = partial(_Suspension, sealed(hook.suspend))
    frames_shut = partial(_Suspension, sealed(hook.shut_frames))
    seal = partial(_seal_shared, hook)
    return Gates(
        suspended, hook.objects, hook.referents, frames_shut, sealed(hook.shut_frames), seal
    )


def _seal_shared(hook: _Hook, channel: int, end_if_tampered: Callable[[], None]) -> int | None:
    key = None
    hook.end_if_tampered = end_if_tampered
    hook.busy = True  # edgesim's own code follows
    if _sealing is not None:
        key = int.from_bytes(os.urandom(8))
        seccomp.channel_program(channel, key).put_on()
        _sealing.put_on()
    hook.shared = True
    hook.busy = False
    return key


def seal(cpu_ms: int) -> None:
    """Limit a fork for one invocation: no process or thread, CPU time up to ``cpu_ms``.

    Timers and signal masks cannot be changed afterwards.
    """
    if _hook is not None:
        _hook.busy = True  # edgesim's own code follows
    seconds = -(-cpu_ms // 1000) + CPU_SLACK_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    _start_timers(cpu_ms)
    if _sealing is not None:
        _sealing.put_on()
    if _hook is not None:
        _hook.busy = False


def _start_timers(cpu_ms: float) -> None:
    """Send SIGPROF after ``cpu_ms``, for Python code; then SIGVTALRM, which also ends C code."""
    signal.setitimer(signal.ITIMER_PROF, cpu_ms / 1000, CPU_GRACE_SECONDS)
    signal.setitimer(signal.ITIMER_VIRTUAL, cpu_ms / 1000 + CPU_GRACE_SECONDS)


def _limit_memory(memory_bytes: int) -> None:
    """Limit heap and mappings, the runtime's included as on the platform (128 MB there).

    RLIMIT_DATA does not count shared mappings, so on Linux the address space is limited too,
    relative to its present size.  macOS accepts both limits but does not enforce them.
    """
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    if not LINUX:
        return
    data, size = _memory()
    mapped = size + max(0, memory_bytes - data)
    resource.setrlimit(resource.RLIMIT_AS, (mapped, mapped))


def _memory() -> tuple[int, int]:
    """Return this process's sizes of data and address space in bytes."""
    found = {"VmData": 0, "VmSize": 0}
    with open("/proc/self/status") as status:  # noqa: PTH123 (no pathlib in isolates)
        for line in status:
            name, _, value = line.partition(":")
            if name in found:
                found[name] = int(value.split()[0]) * 1024
    return found["VmData"], found["VmSize"]


def _library() -> list[str]:
    """Return the paths of Python's own modules and of the libraries they load."""
    paths = sysconfig.get_paths()
    return [
        paths["stdlib"],
        paths["platstdlib"],
        f"{sys.base_prefix}/lib",
        *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"),
    ]


def is_platform(code: Any) -> bool:
    """Return True for the code of a function of edgesim."""
    return code is not None and code.co_filename.startswith(_PLATFORM_FOLDER)


class _Hook:
    """Audit hook that refuses operations."""

    def __init__(self, guards: list[str], readable: list[str], listed: Sequence[str]) -> None:
        self._files = LANDLOCK not in guards
        self._others = SECCOMP not in guards
        self._readable = tuple(os.path.realpath(path) for path in readable)
        self._listed = self._readable + tuple(os.path.realpath(path) for path in listed)
        self.end_if_tampered: Callable[[], None] = lambda: None
        """Called first for each event of worker code, which may have replaced names used here."""
        self.in_zygote = True
        self.busy = False
        self.shared = False
        """True in a fork for many invocations."""
        self._frames_shut = False
        self._suspended = False
        self._listing = False

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        refusal: BaseException | None = None
        try:
            self._judge(event, args)
        except BaseException as error:  # noqa: BLE001 (raised again)
            # Drop frames that refer to this object.  No calls here: in a deep recursion they fail.
            refusal = error
            refusal.__traceback__ = None
        if refusal is not None:
            del self
            raise refusal

    def _judge(self, event: str, args: tuple[Any, ...]) -> None:
        if self._suspended and event.startswith("ctypes."):
            return
        if event == "sys.addaudithook" and not self.busy:
            self.end_if_tampered()
            raise PermissionError(1, f"Operation not permitted in an isolate ({event})")
        if self.shared and not self.busy:
            self._keep_apart(event, args)
        in_import = in_global_scope.get() is not None
        others = self._others or self.in_zygote
        if not (in_import or self._files or others) or self.busy:
            return
        self.busy = True
        try:
            if (in_import or others) and event.startswith(_OF_OTHERS):
                self._refuse(event, in_import)
            if self._files and (event.startswith(_OF_FILES) or self._opens(event, args)):
                self._refuse(event, in_import)
        finally:
            self.busy = False

    def suspend(self, suspended: bool) -> bool:
        """Allow (True) or check (False) uses of ``ctypes``; returns the previous setting."""
        before, self._suspended = self._suspended, suspended
        return before

    def objects(self) -> list[Any]:
        """See ``Gates``."""
        self._listing = True
        try:
            return gc.get_objects()
        finally:
            self._listing = False

    def referents(self, *objects: Any) -> list[Any]:
        """See ``Gates``."""
        self._listing = True
        try:
            return gc.get_referents(*objects)
        finally:
            self._listing = False

    def shut_frames(self, shut: bool) -> bool:
        """See ``Gates``."""
        before, self._frames_shut = self._frames_shut, shut
        return before

    def _keep_apart(self, event: str, args: tuple[Any, ...]) -> None:
        """Refuse access to other invocations and to the code that serves all of them."""
        if event not in _JUDGED:
            return
        self.end_if_tampered()
        refused = event in _SEEING and not self._listing
        if event == "object.__getattr__" and args[1] in _FRAME_ATTRIBUTES:
            code = getattr(args[0], args[1].replace("frame", "code"), None)
            refused = self._frames_shut or is_platform(code)
        elif event == "object.__setattr__" and args[1] in _FUNCTION_PARTS:
            refused = type(args[0]) is FunctionType and is_platform(args[0].__code__)
        elif event in _FRAMES:
            refused = self._frames_shut or event != "sys._getframe"
        if refused:
            raise PermissionError(1, f"Operation not permitted in an isolate ({event})")

    def _opens(self, event: str, args: tuple[Any, ...]) -> bool:
        """Return True if it opens a file to write, or one that this process may not read."""
        if event in {"os.listdir", "os.scandir"}:
            return not self._is_within(self._listed, args[0] if args else ".")
        if event != "open" or isinstance(args[0], int):
            return False
        mode, flags = args[1], args[2]
        writes = bool(set(mode or "") & set("wax+")) or bool((flags or 0) & _WRITING)
        return writes or not self._is_within(self._readable, args[0])

    @staticmethod
    def _is_within(folders: Iterable[str], path: Any) -> bool:
        if isinstance(path, int):
            return False
        # In no context: the files of an invocation are not meant, and no code of its own may run.
        real = Context().run(os.path.realpath, os.fsdecode(path or "."))
        return any(real == each or real.startswith(each + "/") for each in folders)

    @staticmethod
    def _refuse(event: str, in_import: bool) -> None:
        if in_import:
            raise RuntimeError(GLOBAL_SCOPE)
        raise PermissionError(1, f"Operation not permitted in an isolate ({event})")


UNINTERRUPTED = {_Hook.objects.__code__, _Hook.referents.__code__, _Hook.__call__.__code__}
"""Code during which the SIGPROF handler runs nothing else, since the hook allows more there."""
