"""Snapshot of a loaded Worker in its zygote's memory, inherited by every fork."""

from __future__ import annotations

import gc
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workers._bindings import Env
from workers._runtime import current_env

from edgesim.isolates.guest import clock_and_random, guard, jailed_loop, shared_loop
from edgesim.isolates.guest.entrypoints import entrypoints, handlers_of
from edgesim.isolates.guest.module_namespace import CodeCache
from edgesim.isolates.guest.packages import vendored
from edgesim.isolates.guest.shared_state import freeze_types
from edgesim.isolates.guest.warm_up import rehearse_while_idle
from edgesim.isolates.guest.worker_import import load
from edgesim.isolates.protocol.wire import Boot


class Snapshot:
    """A loaded Worker.  The constructor imports it, and raises the import's exceptions."""

    def __init__(self, boot: Boot, loop: jailed_loop.TurnLoop) -> None:
        self._loop = loop
        self._main = Path(boot.main)
        self._legacy = boot.legacy
        self._cpu_ms = boot.cpu_ms
        self._bindings = boot.bindings
        self._env = self._new_env()
        current_env.set(self._env)
        with clock_and_random.global_scope():
            self._entries = entrypoints(load(self._main), boot.legacy)
        self.handlers = handlers_of(self._entries)
        self.entrypoints = list(self._entries)
        self._codes = CodeCache(self._main.parent)
        self._vendored = vendored(self._main)
        self._loaded = [name for name in list(sys.modules) if self._is_own(name)]
        self._name = self._main.stem
        self._codes.find(self._name)
        signal.signal(signal.SIGPROF, jailed_loop.raise_out_of_time)

    def serve_one(self, sock: socket.socket) -> None:
        """Serve the only invocation of a fork."""
        rehearse_while_idle(self._loop, sock)
        guard.seal(self._cpu_ms)
        jailed_loop.run_once(self._loop, sock, self._entries, self._env)
        jailed_loop.wait_for_hang_up(sock)

    def serve_many(self, sock: socket.socket, page: int) -> Callable[[], Any]:
        """Return the main function of a fork that serves many invocations concurrently.

        ``page`` is the file descriptor of the memory shared with the platform.
        """
        gc.unfreeze()
        freeze_types(self._vendored)
        gc.freeze()
        worker = shared_loop.LoadedWorker(
            *(self._codes, self._name, self._legacy, self._new_env, self._cpu_ms),
            *(self._vendored, self._loaded),
        )
        return shared_loop.shared_main(sock, page, worker)

    def _is_own(self, name: str) -> bool:
        found = self._codes.find(name)
        return found is not None and getattr(sys.modules[name], "__file__", None) == found.file

    def _new_env(self) -> Env:
        return Env([(name, kind, value) for name, kind, value in self._bindings])
