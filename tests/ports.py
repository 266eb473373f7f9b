"""TCP ports for the servers that tests start.

A port that the kernel hands out for ``bind(0)`` is free only until the probe closes: an outgoing
connection, or another test process that asks, can take it before the server does.  These ports
lie below the range of outgoing connections, and a file lock keeps each for one test process.
"""

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import IO

_FIRST, _LAST = 10_000, 19_999
# Some servers listen on a second port that they derive from the first.
_DERIVED_OFFSET = 10_000

_held: list[IO[bytes]] = []


def reserved_port() -> int:
    """Return a port for a server on 127.0.0.1, reserved until this process exits.

    The port 10,000 above it is reserved too.
    """
    folder = Path(tempfile.gettempdir()) / f"edgesim-test-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for port in random.SystemRandom().sample(range(_FIRST, _LAST + 1), _LAST - _FIRST + 1):
        lock = (folder / str(port)).open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        if _is_free(port) and _is_free(port + _DERIVED_OFFSET):
            _held.append(lock)
            return port
        lock.close()
    raise AssertionError(f"no free port from {_FIRST} to {_LAST}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
