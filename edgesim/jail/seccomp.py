"""Seccomp: which system calls a process may make.  All others fail with EPERM.

Facts: https://docs.kernel.org/userspace-api/seccomp_filter.html.  Two filters, because a zygote
must fork and its isolates must not: a process is under all filters that it and its ancestors have
put on, and the strictest answer counts.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

_SECCOMP = {"x86_64": 317, "aarch64": 277}
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000
_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER = 1

_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _EQUAL, _ATLEAST, _ANY_OF, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_AT_NUMBER, _AT_ARCH, _AT_ARGS = 0, 4, 16

# name -> (number on x86_64, number on aarch64); -1 where there is none.
_NUMBERS = {
    "access": (21, -1), "brk": (12, 214), "clock_getres": (229, 114), "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115), "clone": (56, 220), "clone3": (435, 435), "close": (3, 57),
    "close_range": (436, 436), "dup": (32, 23), "dup2": (33, -1), "dup3": (292, 24),
    "exit": (60, 93), "exit_group": (231, 94), "faccessat": (269, 48), "faccessat2": (439, 439),
    "fcntl": (72, 25), "fork": (57, -1), "fstat": (5, 80), "futex": (202, 98), "getcwd": (79, 17),
    "getdents64": (217, 61), "getegid": (108, 177), "geteuid": (107, 175), "getgid": (104, 176),
    "getpid": (39, 172), "getppid": (110, 173), "getrandom": (318, 278), "getrlimit": (97, 163),
    "getrusage": (98, 165), "gettid": (186, 178), "gettimeofday": (96, 169), "getuid": (102, 174),
    "ioctl": (16, 29), "lseek": (8, 62), "lstat": (6, -1), "madvise": (28, 233), "mmap": (9, 222),
    "mprotect": (10, 226), "mremap": (25, 216), "munmap": (11, 215), "nanosleep": (35, 101),
    "newfstatat": (262, 79), "open": (2, -1), "openat": (257, 56), "pipe": (22, -1),
    "pipe2": (293, 59), "poll": (7, -1), "ppoll": (271, 73), "prctl": (157, 167),
    "pread64": (17, 67), "prlimit64": (302, 261), "pselect6": (270, 72), "read": (0, 63),
    "readlink": (89, -1), "readlinkat": (267, 78), "readv": (19, 65), "recvfrom": (45, 207),
    "recvmsg": (47, 212), "restart_syscall": (219, 128), "rseq": (334, 293),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "sched_getaffinity": (204, 123), "sched_yield": (24, 124), "seccomp": (317, 277),
    "select": (23, -1), "sendmsg": (46, 211), "sendto": (44, 206), "set_robust_list": (273, 99),
    "set_tid_address": (218, 96), "setitimer": (38, 103), "setrlimit": (160, 164),
    "sigaltstack": (131, 132), "stat": (4, -1), "statx": (332, 291), "sysinfo": (99, 179),
    "times": (100, 153), "uname": (63, 160), "vfork": (58, -1), "wait4": (61, 260),
    "write": (1, 64), "writev": (20, 66),
}  # fmt: skip

_CLONE_THREAD = 0x10000
_FORKING = {"clone", "fork", "vfork"}
_SETTLED = {
    "clone3", "prctl", "rt_sigaction", "seccomp", "setitimer", "setrlimit",
}  # fmt: skip
"""What an isolate has set when worker code begins, and needs no more."""
_HARMLESS_IOCTLS = (0x5401, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS (isatty), FIONREAD, FIONBIO, FIONCLEX, FIOCLEX; not TIOCSTI, which types on a terminal."""


class Program:
    """A filter, ready to be put on by this process or by a fork of it, at the price of one call."""

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
        """From here on, for ever, for this process and its children.  OSError if refused."""
        if self._syscall(*self._arguments) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def available() -> bool:
    """Whether this machine's system calls are in the table and its kernel has seccomp."""
    return (
        sys.platform == "linux"
        and platform.machine() in _SECCOMP
        and os.path.exists("/proc/sys/kernel/seccomp")  # noqa: PTH110 (no pathlib in isolates)
    )


def zygote_program() -> Program:
    """Compute, files (which Landlock shuts), inherited sockets, forks.

    No thread, no new socket, no exec, no signal to anybody, no other process's memory, no change of
    the file system.
    """
    code = _begin()
    code += _unless_arg("ioctl", 1, _HARMLESS_IOCTLS)
    code += _when_flag("clone", 0, _CLONE_THREAD)
    code += _when("clone3", _ERRNO | errno.ENOSYS)  # libc then uses clone, whose flags it can see
    for name in sorted(_NUMBERS.keys() - {"ioctl", "clone3"}):
        code += _when(name, _ALLOW)
    return Program([*code, _return(_ERRNO | errno.EPERM)])


def isolate_program() -> Program:
    """On top of that: no process or thread, no limit raised, no other filter.

    Signals and timers stay as they are set.
    """
    code = _begin()
    for name in sorted(_FORKING | _SETTLED):
        code += _when(name, _ERRNO | errno.EPERM)
    # Done and without effect: parts of the C library end the process where it is refused.
    code += _when("rt_sigprocmask", _ERRNO | 0)
    code += _when_arg_set("prlimit64", 2)
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


def _number(name: str) -> int:
    return _NUMBERS[name][platform.machine() == "aarch64"]


def _when(name: str, answer: int) -> list[bytes]:
    number = _number(name)
    return [] if number < 0 else [_jump(_EQUAL, number, 0, 1), _return(answer)]


def _unless_arg(name: str, index: int, values: tuple[int, ...]) -> list[bytes]:
    """Allow the call if the low half of an argument is one of the values, else refuse it."""
    body = [_load(_AT_ARGS + 8 * index)]
    for value in values:
        body += [_jump(_EQUAL, value, 0, 1), _return(_ALLOW)]
    body.append(_return(_ERRNO | errno.EPERM))
    return [_jump(_EQUAL, _number(name), 0, len(body)), *body]


def _when_flag(name: str, index: int, flag: int) -> list[bytes]:
    """Refuse the call if an argument has the flag."""
    body = [
        _load(_AT_ARGS + 8 * index),
        _jump(_ANY_OF, flag, 0, 1),
        _return(_ERRNO | errno.EPERM),
        _load(_AT_NUMBER),
    ]
    return [_jump(_EQUAL, _number(name), 0, len(body)), *body]


def _when_arg_set(name: str, index: int) -> list[bytes]:
    """Refuse the call if a pointer argument is not null."""
    refuse = _return(_ERRNO | errno.EPERM)
    body = [
        _load(_AT_ARGS + 8 * index),
        _jump(_EQUAL, 0, 1, 0),
        refuse,
        _load(_AT_ARGS + 8 * index + 4),
        _jump(_EQUAL, 0, 1, 0),
        refuse,
        _return(_ALLOW),
    ]
    return [_jump(_EQUAL, _number(name), 0, len(body)), *body]


def _load(offset: int) -> bytes:
    return struct.pack("HBBI", _LOAD, 0, 0, offset)


def _jump(test: int, value: int, if_true: int, if_false: int) -> bytes:
    return struct.pack("HBBI", test, if_true, if_false, value)


def _return(answer: int) -> bytes:
    return struct.pack("HBBI", _RETURN, 0, 0, answer)
