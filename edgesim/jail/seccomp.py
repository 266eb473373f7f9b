"""Seccomp filters: limit the system calls of a process.  All others fail with EPERM.

Facts: https://docs.kernel.org/userspace-api/seccomp_filter.html.  There are two filters, because a
zygote must fork and its isolates must not: all filters that a process and its ancestors have
installed apply to it, and the strictest result counts.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import struct

from edgesim.jail.calls import (
    CALLS,
    ENGINE_REFUSED,
    NARROWED,
    ON_A_DESCRIPTOR,
    ONLY_THREADS,
    REFUSED,
    SQL_REFUSED,
    WORKERD_ALLOWED,
    Check,
)
from edgesim.system import LINUX

_SECCOMP = {"x86_64": 317, "aarch64": 277}
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000
_CLONE3 = 435
_PR_SET_NO_NEW_PRIVS = 38
_AF_UNIX, _AF_INET = 1, 2
_SET_MODE_FILTER = 1

_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _EQUAL, _ATLEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_AT_NUMBER, _AT_ARCH, _AT_ARGS = 0, 4, 16


class Program:
    """Assembled filter that this process or a fork of it can install with one system call."""

    def __init__(self, instructions: list[bytes]) -> None:
        self._code = ctypes.create_string_buffer(b"".join(instructions))
        header = struct.pack("HxxxxxxQ", len(instructions), ctypes.addressof(self._code))
        self._header = ctypes.create_string_buffer(header)
        self._arguments = (
            *(_SECCOMP[platform.machine()], _SET_MODE_FILTER, 0),
            ctypes.addressof(self._header),
        )
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        self._syscall = libc.syscall
        self._syscall.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_void_p)

    def put_on(self) -> None:
        """Install the filter for this process and its children, permanently; OSError if refused."""
        if self._syscall(*self._arguments) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def available() -> bool:
    """Return True if the table covers this machine's architecture and its kernel has seccomp."""
    return (
        LINUX and platform.machine() in _SECCOMP and os.path.exists("/proc/sys/kernel/seccomp")  # noqa: PTH110 (no pathlib in isolates)
    )


def zygote_program() -> Program:
    """Return the filter that allows ``CALLS``.

    Allowed: computing, reading files (within Landlock), inherited sockets, forks.  Refused:
    threads, new sockets, exec, signals, other processes' memory, file system changes.
    """
    code = _begin()
    # libc then falls back to clone, whose flags a filter can read.
    code += _when(_CLONE3, _ERRNO | errno.ENOSYS)
    for name, call in sorted(CALLS.items()):
        code += _allow(call_number(name), call.allowed)
    return Program([*code, _return(_ERRNO | errno.EPERM)])


def isolate_program() -> Program:
    """Return the filter added for isolates: no process, thread, raised limit or further filter.

    Signal handlers and timers can no longer be changed.
    """
    code = _begin()
    code += _when(_CLONE3, _ERRNO | errno.EPERM)
    for name in REFUSED:
        code += _when(call_number(name), _ERRNO | errno.EPERM)
    # Reports success without effect: parts of the C library abort the process if it is refused.
    code += _when(call_number("rt_sigprocmask"), _ERRNO | 0)
    for name, allowed in NARROWED.items():
        code += _allow(call_number(name), allowed)
    return Program([*code, _return(_ALLOW)])


def channel_program(fd: int, key: int) -> Program:
    """Return a filter that refuses calls on the socket ``fd`` without the key, and copies of it.

    The key (64 bits) is passed in an argument that the kernel ignores: the length of an address
    that is null.
    """
    code = _begin()
    refuse = [_return(_ERRNO | errno.EPERM), _return(_ALLOW)]
    for name in ON_A_DESCRIPTOR:
        number = call_number(name)
        if number >= 0:
            body = [_load(_AT_ARGS), _jump(_EQUAL, fd, 0, 1), *refuse]
            code += [_jump(_EQUAL, number, 0, len(body)), *body]
    at = _AT_ARGS + 8 * 5
    for name in ("recvfrom", "sendto"):
        body = [
            *(_load(at), _jump(_EQUAL, key & 0xFFFFFFFF, 0, 2)),
            *(_load(at + 4), _jump(_EQUAL, key >> 32, 1, 0)),
            *refuse,
        ]
        code += [_jump(_EQUAL, call_number(name), 0, len(body)), *body]
    return Program([*code, _return(_ALLOW)])


def engine_program() -> Program:
    """Return the filter of a process that runs SQL: no connection, program or other process."""
    code = _begin()
    for number in ENGINE_REFUSED[platform.machine()].values():
        code += _when(number, _ERRNO | errno.EPERM)
    return Program([*code, _return(_ALLOW)])


def sql_program() -> Program:
    """Return the filter of the process that runs pipelines' SQL: threads, but no other process."""
    machine = platform.machine()
    code = _begin()
    # libc then falls back to clone, whose flags a filter can read.
    code += _when(_CLONE3, _ERRNO | errno.ENOSYS)
    for number in (ENGINE_REFUSED[machine] | SQL_REFUSED[machine]).values():
        code += _when(number, _ERRNO | errno.EPERM)
    code += _allow(call_number("clone"), ONLY_THREADS)
    return Program([*code, _return(_ALLOW)])


def workerd_program(*, listens: bool = False) -> Program:
    """Return the filter of a workerd process: no network, no other process.

    Of sockets only Unix ones, which it connects to the platform's.  Programs are Landlock's matter:
    workerd is one itself, and started under this filter.  It goes on ignoring SIGTERM: that it sets
    a handler, which would end it, reports success without effect.  ``listens``: it may bind IPv4
    ports, for a debugger; that it connects to none is Landlock's matter too.
    """
    refused = ENGINE_REFUSED[platform.machine()]
    code = _begin()
    for name, number in refused.items():
        if name not in WORKERD_ALLOWED and not (listens and name == "bind"):
            code += _when(number, _ERRNO | errno.EPERM)
    families = (_AF_UNIX, _AF_INET) if listens else (_AF_UNIX,)
    code += _allow(refused["socket"], ((Check(0, families),),))
    handler = [_load(_AT_ARGS), _jump(_EQUAL, signal.SIGTERM, 0, 1), _return(_ERRNO | 0)]
    code += [_jump(_EQUAL, call_number("rt_sigaction"), 0, len(handler)), *handler]
    return Program([*code, _return(_ALLOW)])


def _begin() -> list[bytes]:
    machine = platform.machine()
    code = [
        _load(_AT_ARCH),
        _jump(_EQUAL, _AUDIT_ARCH[machine], 1, 0),
        _return(_KILL),
        _load(_AT_NUMBER),
    ]
    if machine == "x86_64":
        code += [_jump(_ATLEAST, _X32_BIT, 0, 1), _return(_ERRNO | errno.EPERM)]
    return code


def call_number(name: str) -> int:
    """Return the system call's number on this machine; -1 if it does not exist there."""
    call = CALLS[name]
    return call.aarch64 if platform.machine() == "aarch64" else call.x86_64


def _when(number: int, answer: int) -> list[bytes]:
    return [] if number < 0 else [_jump(_EQUAL, number, 0, 1), _return(answer)]


def _allow(number: int, alternatives: tuple[tuple[Check, ...], ...]) -> list[bytes]:
    """Allow the call if all checks of one alternative hold, or it has none; else refuse it."""
    if number < 0 or not alternatives:
        return _when(number, _ALLOW)
    body = [_return(_ERRNO | errno.EPERM)]
    for checks in reversed(alternatives):
        body = [*_all_of(checks), *body]
    return [_jump(_EQUAL, number, 0, len(body)), *body]


def _all_of(checks: tuple[Check, ...]) -> list[bytes]:
    """Allow if all checks hold; else continue after this code."""
    code = [_return(_ALLOW)]
    for check in reversed(checks):
        if check.wide:
            code = [*_compare(_AT_ARGS + 8 * check.argument + 4, 0, (0,), len(code)), *code]
        low = _compare(_AT_ARGS + 8 * check.argument, check.ignoring, check.values, len(code))
        code = [*low, *code]
    return code


def _compare(offset: int, ignoring: int, values: tuple[int, ...], skip: int) -> list[bytes]:
    """Skip ``skip`` instructions unless the word at ``offset`` is one of the values."""
    code = [_load(offset)]
    if ignoring:
        code.append(struct.pack("HBBI", _AND, 0, 0, ~ignoring & 0xFFFFFFFF))
    for left, value in zip(range(len(values) - 1, -1, -1), values, strict=True):
        code.append(_jump(_EQUAL, value, left, 0 if left else skip))
    return code


def _load(offset: int) -> bytes:
    return struct.pack("HBBI", _LOAD, 0, 0, offset)


def _jump(test: int, value: int, if_true: int, if_false: int) -> bytes:
    return struct.pack("HBBI", test, if_true, if_false, value)


def _return(answer: int) -> bytes:
    return struct.pack("HBBI", _RETURN, 0, 0, answer)
