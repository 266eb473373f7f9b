"""A Worker's zygote: imports the SDK and the worker module once, then forks isolates on request.

One zygote runs per Worker version: ``python -m edgesim.isolates.guest.zygote FD``.  The platform's
first frame is Boot, the zygote's reply is Booted.  Then each datagram on the control socket
requests one fork and carries the isolate's end of its channel.  Every fork starts from the memory
that the import left, like the start-up snapshot on the platform.

The guards are installed before the Worker's module is imported, so that all worker code runs under
them.  Every fork inherits them.
"""

from __future__ import annotations

import os

if __name__ == "__main__":
    # Fork handlers of threading, logging and random take a third of a fork's time, in page faults.
    # They reset the locks of other threads, and there are none here.
    os.register_at_fork = lambda **_: None

import gc
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesim.isolates.guest.own_files import readable
from edgesim.isolates.guest.packages import module_folders
from edgesim.isolates.guest.worker_import import SDK, add_own_modules, explain, reset_import_path
from edgesim.isolates.protocol.wire import (
    FORK_REQUEST_BYTES,
    MANY,
    OUT_OF_MEMORY_STATUS,
    Boot,
    Booted,
    Exited,
    Forked,
    MessageReader,
    one,
)
from edgesim.jail.family import ProcessFamily, found_family
from edgesim.jail.lifeline import end_with_edgesim, end_with_parent, ignore_group_signals
from edgesim.system import peak_memory_bytes

if TYPE_CHECKING:
    from edgesim.isolates.guest.snapshot import Snapshot


def live() -> None:
    """Run the zygote, and in each of its forks the isolate; a fork never returns."""
    zygote = os.getpid()
    status = 1
    try:
        # The function is not kept in a variable: worker code can see variables of frames below it.
        main()()
        status = 0
    except (BrokenPipeError, ConnectionResetError):
        status = 0  # the platform has closed the connection
    except MemoryError:  # outside worker code, where it would be the invocation's exception
        status = OUT_OF_MEMORY_STATUS
    except BaseException:
        if os.getpid() == zygote:
            raise
        traceback.print_exc(file=sys.__stderr__)  # no other way to report is left
    finally:
        if os.getpid() != zygote:
            os._exit(status)


def main() -> Callable[[], Any]:
    """Fork isolates until the platform disconnects; in a fork, return the isolate's main function.

    In the zygote, the returned function does nothing.
    """
    ignore_group_signals()
    end_with_edgesim()
    os.chdir("/")  # as on the platform: no relative path leads to where edgesim was started
    family = found_family()  # before worker code can start a process
    control = socket.socket(fileno=int(sys.argv[1]))
    boot = _receive_boot(control)
    try:
        with suppress(BrokenPipeError, ConnectionResetError):  # the platform is gone
            return _serve(control, boot, family)
    except BaseException as error:  # noqa: BLE001 (every error of an import is reported)
        control.sendall(one(Booted(error=explain(error, Path(boot.main)))))
    return _nothing


def _nothing() -> None:
    """Main function of the zygote itself after its last fork: do nothing."""


def _serve(control: socket.socket, boot: Boot, family: ProcessFamily | None) -> Callable[[], Any]:
    main_file = Path(boot.main)
    reset_import_path()
    from edgesim.isolates.guest import guard
    from edgesim.isolates.guest.snapshot import Snapshot
    from edgesim.isolates.guest.warm_up import rehearsed_loop

    own, *packages = module_folders(main_file)
    loop = rehearsed_loop([*sys.path, str(Path(__file__).parents[1]), own, *packages])
    folders = [SDK, str(Path(__file__).parents[1]), *packages, *readable(own, boot.hidden)]
    guards = guard.put_on(boot.guard, folders, [own], boot.memory_bytes)
    add_own_modules(main_file)  # only now: modules of the Worker must not be imported unguarded
    snapshot = Snapshot(boot, loop)
    ignore_group_signals()  # again: the import may have set handlers of its own
    control.sendall(one(Booted(snapshot.handlers, None, guards, snapshot.entrypoints)))
    gc.collect()
    gc.freeze()  # garbage collection would write to, and so copy, memory pages that forks share
    return _Forks(control, snapshot, guard.fork, family).run()


def _receive_boot(control: socket.socket) -> Boot:
    reader = MessageReader()
    while data := control.recv(1 << 16):
        for message in reader.feed(data):
            for _, frame in message.frames:
                if isinstance(frame, Boot):
                    return frame
    raise SystemExit(0)


def _raise(error: BaseException) -> None:
    raise error


def _channel(fd: int) -> socket.socket:
    """Return the socket of a descriptor; its type is given, since the guard refuses to query it."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)


class _Forks:
    """Main loop of the zygote: fork on request, report the exits of forks."""

    def __init__(
        self,
        control: socket.socket,
        snapshot: Snapshot,
        fork: Callable[[], int],
        family: ProcessFamily | None,
    ) -> None:
        self._family = family
        self._control = control
        self._fork = fork
        self._snapshot = snapshot
        self._pid = os.getpid()
        self._numbers: dict[int, int] = {}  # pid -> the platform's number
        self._wake_read, wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(wake_write, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        self._wake_write = wake_write

    def run(self) -> Callable[[], Any]:
        """Serve requests until the platform disconnects; in a fork, return its main function."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
                self._reap()
            if self._control.fileno() in ready and (isolate_main := self._fork_next()) is not None:
                return isolate_main

    def _fork_next(self) -> Callable[[], Any] | None:
        """Serve one request; return a main function in the fork, and after a disconnect.

        Returns None in the zygote while it goes on.
        """
        data, fds, _, _ = socket.recv_fds(self._control, FORK_REQUEST_BYTES, 2)
        if not fds:
            return _nothing
        number = int.from_bytes(data[:4], "big")
        news: Forked | Exited
        try:
            pid = self._fork()
        except OSError as error:  # out of processes or memory: may be temporary
            os.write(2, f"cannot fork an isolate: {error}\n".encode())
            news = Exited(number, 0, 0.0, 0)
        else:
            if pid == 0:
                return self._become_isolate(data[4:], fds)
            self._numbers[pid] = number
            news = Forked(number, pid)
        for fd in fds:
            os.close(fd)
        self._control.sendall(one(news))
        return None

    def _become_isolate(self, kind: bytes, fds: list[int]) -> Callable[[], Any]:
        try:
            end_with_parent()
            # 0: the zygote is outside the isolate's PID namespace.
            if os.getppid() not in {0, self._pid}:  # it exited before end_with_parent took effect
                os._exit(0)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for inherited in (self._control.fileno(), self._wake_read, self._wake_write):
                os.close(inherited)
            if kind == MANY:
                return self._snapshot.serve_many(_channel(fds[0]), fds[1])
            return partial(self._snapshot.serve_one, _channel(fds[0]))
        except BaseException as error:  # noqa: BLE001 (the fork must not continue as a zygote)
            raised = error
        return partial(_raise, raised)

    def _reap(self) -> None:
        if self._family is not None and self._family.has_ended():
            raise SystemExit("the helper process of the zygote's PID namespace has ended")
        while self._numbers:
            pid, status, used = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return
            number = self._numbers.pop(pid, None)
            if number is not None:
                cpu_ms = (used.ru_utime + used.ru_stime) * 1000
                peak = peak_memory_bytes(used)
                self._control.sendall(one(Exited(number, status, cpu_ms, peak)))


if __name__ == "__main__":
    live()
