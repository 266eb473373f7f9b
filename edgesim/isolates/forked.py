"""The Worker in its zygote's memory: the starting point of every fork, and the main loop of one."""

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

from edgesim.isolates import guard, inside, senses, shared, turns
from edgesim.isolates.namespace import CodeCache
from edgesim.isolates.packages import vendored
from edgesim.isolates.rehearsal import rehearse_while_idle
from edgesim.isolates.shared_state import freeze_types
from edgesim.isolates.wire import Boot
from edgesim.isolates.zygote import load


class Snapshot:
    """A loaded Worker.  Exceptions of its import are raised here."""

    def __init__(self, boot: Boot, loop: turns.TurnLoop) -> None:
        self._loop = loop
        self._main = Path(boot.main)
        self._cpu_ms = boot.cpu_ms
        self._bindings = boot.bindings
        self._env = self._new_env()
        current_env.set(self._env)
        with senses.global_scope():
            self._entries = inside.entrypoints(load(self._main))
        self.handlers = inside.handlers_of(self._entries)
        self.entrypoints = list(self._entries)
        self._codes = CodeCache(self._main.parent)
        self._vendored = vendored(self._main)
        self._loaded = [name for name in list(sys.modules) if self._is_own(name)]
        self._name = self._main.stem
        self._codes.find(self._name)
        signal.signal(signal.SIGPROF, turns.raise_out_of_time)

    def serve_one(self, sock: socket.socket) -> None:
        """Serve one invocation, in a fork that is used once."""
        rehearse_while_idle(self._loop, sock)
        guard.seal(self._cpu_ms)
        turns.run_once(self._loop, sock, self._entries, self._env)
        turns.wait_for_hang_up(sock)

    def many(self, sock: socket.socket, page: int) -> Callable[[], Any]:
        """Return the main function of a fork that serves many invocations, also concurrently."""
        gc.unfreeze()
        freeze_types(self._vendored)
        gc.freeze()
        worker = shared.Worker(
            self._codes, self._name, self._new_env, self._cpu_ms, self._vendored, self._loaded
        )
        return shared.life(sock, page, worker)

    def _is_own(self, name: str) -> bool:
        found = self._codes.find(name)
        return found is not None and getattr(sys.modules[name], "__file__", None) == found.file

    def _new_env(self) -> Env:
        return Env([(name, kind, value) for name, kind, value in self._bindings])
