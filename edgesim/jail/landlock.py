"""Landlock: limits the folders that a process may read and write; blocks TCP and outside signals.

Facts: https://docs.kernel.org/userspace-api/landlock.html.  Needs Linux 5.13; TCP is blocked from
Linux 6.7 on, signals to processes outside and abstract UNIX sockets from Linux 6.12 on.  Later
versions of the interface (7: audit records) add no restriction that is used here.  No version
restricts reading a file's name, size or times (stat).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

from edgesim.system import LINUX

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

_EXECUTE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 2, 1 << 3
_OF_A_FILE = 1 << 0 | 1 << 1 | _READ_FILE | 1 << 14
"""Rights that apply to a single file: execute, write, read, truncate."""
_FS_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
"""Number of file system rights that each version of the interface supports; later ones: 16."""
_TCP_VERSION = 4
_TCP_RIGHTS, _TCP_CONNECT = 0b11, 0b10
_SCOPE_VERSION = 6
_SCOPES = 0b11
"""Abstract UNIX sockets and signals, each limited to processes under the same ruleset."""


def version() -> int:
    """Return the kernel's version of the Landlock interface; 0 if it has none."""
    if not LINUX:
        return 0
    return max(0, int(_libc().syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)))


def restrict(
    read: Iterable[str],
    write: Iterable[str] = (),
    execute: Iterable[str] = (),
    listed: Iterable[str] = (),
    *,
    listens: bool = False,
) -> bool:
    """Limit this process and its children to these paths and everything below them, permanently.

    ``execute``: programs, or folders of them, that may be read and run.  ``listed``: folders whose
    entries can be listed, which includes those of folders below.  Paths that do not exist are
    skipped.  ``listens``: it may bind TCP ports, but not connect.  Returns False, without effect,
    if the kernel has no Landlock; raises OSError if it has and refuses.
    """
    abi = version()
    if not abi:
        return False
    libc = _libc()
    rights = (1 << _FS_RIGHTS.get(abi, 16)) - 1
    attributes = _attributes(abi, rights, _TCP_CONNECT if listens else _TCP_RIGHTS)
    ruleset = _done(libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0))
    try:
        for path in read:
            _allow(ruleset, path, _READ_FILE | _READ_DIR)
        for path in execute:
            _allow(ruleset, path, _EXECUTE | _READ_FILE | _READ_DIR)
        for path in write:
            _allow(ruleset, path, rights)
        for path in listed:
            _allow(ruleset, path, _READ_DIR)
        _done(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _done(libc.syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)
    return True


def _attributes(abi: int, rights: int, tcp: int) -> bytes:
    """Encode the kernel's ruleset struct with only the fields that version supports."""
    values = [rights]
    if abi >= _TCP_VERSION:
        values.append(tcp)
    if abi >= _SCOPE_VERSION:
        values.append(_SCOPES)
    return struct.pack(f"{len(values)}Q", *values)


def _allow(ruleset: int, path: str, rights: int) -> None:
    """Add one rule.  A path in /proc stays open, also in a program that this process becomes.

    A rule is for an inode.  The kernel drops those of /proc when memory is short, unless they are
    in use, and makes new ones, without the rule, for the next look-up.
    """
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
        if path.startswith("/proc/"):
            os.set_inheritable(folder, True)
        else:
            os.close(folder)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _done(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
