"""Channel of an isolate that several invocations share; the kernel requires a key to use it.

Worker code can use any descriptor of its process.  So a filter (``seccomp.channel_program``)
refuses all calls that read, write or copy the channel, except two with 64 random bits in an
argument that the kernel otherwise ignores.  Python's sockets cannot pass that argument, ``ctypes``
can.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from edgesim.jail import seccomp

CHUNK_BYTES = 1 << 16
RECVFROM, SENDTO = seccomp.call_number("recvfrom"), seccomp.call_number("sendto")


class KeyedSocket:
    """Socket whose calls carry the key."""

    def __init__(
        self,
        sock: socket.socket,
        key: int,
        suspended: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._sock = sock  # keeps the descriptor open
        self._fd = sock.fileno()
        self._suspended = suspended
        self._key = key
        self._bytes = bytearray(CHUNK_BYTES)
        self._buffer = (ctypes.c_char * CHUNK_BYTES).from_buffer(self._bytes)
        # Not libc's recvfrom and sendto: they truncate the key's argument to 32 bits.
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_ssize_t
        self._syscall.argtypes = (
            *(ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long),
            *(ctypes.c_void_p, ctypes.c_size_t),
        )

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Like a socket's; returns at most ``CHUNK_BYTES``."""
        while True:
            count = self._call(RECVFROM, self._buffer, CHUNK_BYTES, flags)
            if count >= 0:
                return bytes(memoryview(self._bytes)[:count])
            self._raise_unless_interrupted()

    def sendall(self, data: bytes | bytearray, /) -> None:
        """Like a socket's."""
        left = bytes(data)
        while left:
            count = self._call(SENDTO, left, len(left), 0)
            if count >= 0:
                left = left[count:]
            else:
                self._raise_unless_interrupted()

    def _call(self, number: int, data: Any, size: int, flags: int) -> int:
        count: int = self._syscall(number, self._fd, data, size, flags, None, self._key)
        return count

    def _raise_unless_interrupted(self) -> None:
        with self._suspended():  # ctypes raises an audit event, which the guard refuses
            number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
