"""Landlock: which folders a process may read, which it may write; no TCP, no signal to others.

Facts: https://docs.kernel.org/userspace-api/landlock.html.  Needs Linux 5.13; TCP is shut from
Linux 6.7 on, signals to processes outside and abstract UNIX sockets from Linux 6.12 on.  Later
versions of the interface (7: audit records) add no restriction that is used here.  Looking at a
file's name, size or times (stat) is not restricted by any version.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_OF_A_FILE = 1 << 0 | 1 << 1 | _READ_FILE | 1 << 14
"""Rights that make sense for a single file: execute, write, read, truncate."""
_FS_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
"""How many of the file system's rights each version of the interface knows; later ones: 16."""
_TCP_VERSION = 4
_TCP_RIGHTS = 0b11
_SCOPE_VERSION = 6
_SCOPES = 0b11
"""Abstract UNIX sockets and signals, each kept among the processes that are under this ruleset."""


def version() -> int:
    """The kernel's version of the interface; 0 where it has none."""
    if sys.platform != "linux":
        return 0
    return max(0, int(_libc().syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)))


def restrict(read: Iterable[str], write: Iterable[str] = ()) -> bool:
    """Leave this process and its children these paths and what is beneath them, for ever.

    Paths that do not exist are passed over.  False, and nothing done, where the kernel has no
    Landlock; OSError where it has and refuses.
    """
    abi = version()
    if not abi:
        return False
    libc = _libc()
    rights = (1 << _FS_RIGHTS.get(abi, 16)) - 1
    attributes = _attributes(abi, rights)
    ruleset = _done(libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0))
    try:
        for path in read:
            _allow(ruleset, path, _READ_FILE | _READ_DIR)
        for path in write:
            _allow(ruleset, path, rights)
        _done(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _done(libc.syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)
    return True


def _attributes(abi: int, rights: int) -> bytes:
    """The kernel's struct, as long as that version knows it."""
    values = [rights]
    if abi >= _TCP_VERSION:
        values.append(_TCP_RIGHTS)
    if abi >= _SCOPE_VERSION:
        values.append(_SCOPES)
    return struct.pack(f"{len(values)}Q", *values)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not os.path.isdir(path):  # noqa: PTH112 (pathlib is not loaded into isolates for this)
            rights &= _OF_A_FILE
        rule = struct.pack("=Qi", rights, folder)
        _done(_libc().syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0))
    finally:
        os.close(folder)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _done(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
