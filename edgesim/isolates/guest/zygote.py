"""A Worker's zygote: imports the SDK and the worker module once, then forks isolates on request.

Started by exec, one a Worker and version: ``python -m edgesim.isolates.guest.zygote FD``.  The
platform's first frame is Boot; after Booted, each datagram on the control socket asks for one fork
and carries its end of a channel.  What the import leaves in memory is every fork's starting point,
like the start-up snapshot on the platform.

The guards are put on before the Worker's module is imported, so that nothing of the Worker's ever
runs outside of them, and are inherited by every fork.
"""

from __future__ import annotations

import os

if __name__ == "__main__":
    # Handlers of fork that threading, logging and random register cost a third of a fork, in page
    # faults; they are for the locks of other threads, of which there are none here.
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
from edgesim.isolates.guest.worker_import import SDK, add_own_modules, explain, leave_the_library
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
from edgesim.jail.lifeline import end_with_edgesim, end_with_parent
from edgesim.system import peak_memory_bytes

if TYPE_CHECKING:
    from edgesim.isolates.guest.snapshot import Snapshot


def live() -> None:
    """The life of a zygote, and in a fork of it that of an isolate."""
    zygote = os.getpid()
    status = 1
    try:
        # Not in a variable, and called from here: a frame below worker code shows what it holds.
        main()()
        status = 0
    except (BrokenPipeError, ConnectionResetError):
        status = 0  # the platform has let go of this isolate
    except MemoryError:  # and not in worker code, which would have had it as its own
        status = OUT_OF_MEMORY_STATUS
    except BaseException:
        if os.getpid() == zygote:
            raise
        traceback.print_exc(file=sys.__stderr__)  # the last resort of a process that ends anyway
    finally:
        if os.getpid() != zygote:
            os._exit(status)


def main() -> Callable[[], Any]:
    """Fork isolates until the platform is gone; in a fork, return what it is to do."""
    leave_the_end_to_the_platform()
    end_with_edgesim()
    family = found_family()  # before anything of the Worker's
    control = socket.socket(fileno=int(sys.argv[1]))
    boot = _receive_boot(control)
    try:
        with suppress(BrokenPipeError, ConnectionResetError):  # the platform is gone
            return _serve(control, boot, family)
    except BaseException as error:  # noqa: BLE001 (whatever an import does, the platform is told)
        control.sendall(one(Booted(error=explain(error, Path(boot.main)))))
    return _nothing


def _nothing() -> None:
    """The zygote itself has no more to do."""


def _serve(control: socket.socket, boot: Boot, family: ProcessFamily | None) -> Callable[[], Any]:
    main_file = Path(boot.main)
    leave_the_library()
    from edgesim.isolates.guest import guard
    from edgesim.isolates.guest.snapshot import Snapshot
    from edgesim.isolates.guest.warm_up import rehearsed_loop

    loop = rehearsed_loop()
    own, *packages = module_folders(main_file)
    folders = [SDK, str(Path(__file__).parents[1]), *packages, *readable(own, boot.hidden)]
    guards = guard.put_on(boot.guard, folders, [own], boot.memory_bytes)
    add_own_modules(main_file)  # not before: what is imported without guards must not be a Worker's
    snapshot = Snapshot(boot, loop)
    leave_the_end_to_the_platform()  # again: the import may have set handlers of its own
    control.sendall(one(Booted(snapshot.handlers, None, guards, snapshot.entrypoints)))
    gc.collect()
    gc.freeze()  # keeps the collector from touching, and so copying, the pages that forks share
    return _Forks(control, snapshot, guard.fork, family).run()


def leave_the_end_to_the_platform() -> None:
    """Ignore the signals that are meant for all processes of a service, here and in every fork.

    Service managers and terminals send them to the whole group: the platform answers what is under
    way, and for that its isolates must live.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


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
    """The socket, without asking the kernel what it is, which the guard does not allow."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)


class _Forks:
    """The zygote's life: fork when told, report what ended."""

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
        """Serve requests until the platform is gone; in a fork, return what it is to do."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
                self._reap()
            if self._control.fileno() in ready and (life := self._fork_next()) is not None:
                return life

    def _fork_next(self) -> Callable[[], Any] | None:
        """Take one request; the life of a fork, or nothing to do when the platform is gone."""
        data, fds, _, _ = socket.recv_fds(self._control, FORK_REQUEST_BYTES, 2)
        if not fds:
            return _nothing
        number = int.from_bytes(data[:4], "big")
        news: Forked | Exited
        try:
            pid = self._fork()
        except OSError as error:  # out of processes or memory: it may pass
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
            # 0: the zygote is outside of the isolate's PID namespace.
            if os.getppid() not in {0, self._pid}:  # it ended before the signal was asked for
                os._exit(0)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for inherited in (self._control.fileno(), self._wake_read, self._wake_write):
                os.close(inherited)
            if kind == MANY:
                return self._snapshot.many(_channel(fds[0]), fds[1])
            return partial(self._snapshot.serve_one, _channel(fds[0]))
        except BaseException as error:  # noqa: BLE001 (it must not go on as a zygote)
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
