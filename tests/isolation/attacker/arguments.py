"""Arguments of allowed system calls that reach beyond the process: each must be refused.

``TRIES`` maps the name of an attack to its bare system calls.  Numbers are from the kernel's headers,
not from the filter that is under test.
"""

import ctypes
import errno
import mmap
import os
import platform

ARM = platform.machine() == "aarch64"
FCNTL, IOCTL, PRCTL, MADVISE, MMAP, FUTEX = (
    (25, 29, 167, 233, 222, 98) if ARM else (72, 16, 157, 28, 9, 202)
)
CLOCK_GETTIME, CLOCK_NANOSLEEP, CLOCK_GETRES = (113, 115, 114) if ARM else (228, 230, 229)
PRLIMIT64, SCHED_GETAFFINITY, SENDMSG, RECVMSG, SENDTO = (
    (261, 123, 211, 212, 206) if ARM else (302, 204, 46, 47, 44)
)
OPENAT, PIPE2, CLONE, SECCOMP = (56, 59, 220, 277) if ARM else (257, 293, 56, 317)
NULL = ctypes.c_void_p(0)
OTHER = 1
"""PID of the first process of the zygote's namespace, or of the machine."""
AT_FDCWD = -100
HIGH = ctypes.c_void_p(1 << 32)
SOURCE = __file__.encode()


def clock_of(pid):
    """Return the id of a process's CPU clock, computed as in clock_getcpuclockid."""
    return (~pid << 3) | 2


def signal_by_descriptor():
    read, write = os.pipe()
    owner = ctypes.create_string_buffer(b"\x01\0\0\0" + OTHER.to_bytes(4, "little"))
    for command, argument in (
        (8, OTHER),  # F_SETOWN
        (8, -1),  # every process of a group
        (9, 0),  # F_GETOWN
        (10, 9),  # F_SETSIG
        (11, 0),  # F_GETSIG
        (15, owner),  # F_SETOWN_EX
        (4, 0x2000),  # F_SETFL: O_ASYNC
        (4, 0x2000 | 0x800),
        (1026, 0x10 | 0x2),  # F_NOTIFY, which signals too
    ):
        for descriptor in (read, write):
            yield f"fcntl {command}", FCNTL, descriptor, command, argument


def signal_by_ioctl():
    read, _ = os.pipe()
    pointer = ctypes.byref(ctypes.c_int(OTHER))
    for command in (
        0x5452,  # FIOASYNC
        0x8901,  # FIOSETOWN
        0x8902,  # SIOCSPGRP
        0x8903,  # FIOGETOWN
        0x5410,  # TIOCSPGRP
        0x5412,  # TIOCSTI
        0x540E,  # TIOCSCTTY
        0x541C,  # TIOCLINUX
        0x40086602,  # FS_IOC_SETFLAGS
        0x5452 | 1 << 40,  # the kernel reads only the low 32 bits
    ):
        yield f"ioctl {command:#x}", IOCTL, read, ctypes.c_ulong(command), pointer


def lease():
    source = os.open(SOURCE, os.O_RDONLY)
    lock = ctypes.create_string_buffer(32)
    for command, argument in (
        (1024, 0),  # F_SETLEASE: a read lease, which blocks writers
        (5, lock),  # F_GETLK
        (6, lock),  # F_SETLK
        (7, lock),  # F_SETLKW
        (37, lock),  # F_OFD_SETLK
        (1036, ctypes.byref(ctypes.c_uint64(1))),  # F_SET_RW_HINT
    ):
        yield f"fcntl {command}", FCNTL, source, command, argument


def shared_blocking():
    on = ctypes.byref(ctypes.c_int(1))
    for descriptor in (2, os.pipe()[0]):
        yield "FIONBIO", IOCTL, descriptor, 0x5421, on
        yield "O_NONBLOCK", FCNTL, descriptor, 4, 0x800
        yield "O_APPEND", FCNTL, descriptor, 4, 0x400


def advice():
    area = mmap.mmap(-1, mmap.PAGESIZE)
    address = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(area)))
    for kind in (100, 101):  # MADV_HWPOISON, MADV_SOFT_OFFLINE, of zero pages
        yield f"madvise {kind}", MADVISE, address, 0, kind
    for kind in (9, 12, 13, 20, 21):  # REMOVE, MERGEABLE, UNMERGEABLE, COLD, PAGEOUT
        yield f"madvise {kind}", MADVISE, address, mmap.PAGESIZE, kind


def locked_memory():
    length = ctypes.c_size_t(mmap.PAGESIZE)
    for flag in (0x2000, 0x40000):  # MAP_LOCKED, MAP_HUGETLB
        yield f"mmap {flag:#x}", MMAP, NULL, length, 3, 0x22 | flag, -1, 0


def futex_of_a_thread():
    word = ctypes.byref(ctypes.c_uint32(OTHER))
    for operation in (2, 6, 7, 8, 11, 12, 13, 4096):  # FD and priority inheritance
        for flags in (0, 128):
            yield f"futex {operation}", FUTEX, word, operation | flags, 1, NULL, NULL, 0


def others_by_id():
    room = ctypes.create_string_buffer(1024)
    for pid in (OTHER, os.getpid()):
        for number in (CLOCK_GETTIME, CLOCK_GETRES):
            yield f"clock {pid}", number, clock_of(pid), room
        yield f"sleep {pid}", CLOCK_NANOSLEEP, clock_of(pid), 0, bytes(16), NULL
        for resource in (0, 7, 9):
            yield f"prlimit {pid}", PRLIMIT64, pid, resource, NULL, room
        yield f"affinity {pid}", SCHED_GETAFFINITY, pid, 128, room


def over_the_channel():
    channel = next(fd for fd in range(3, 64) if is_socket(fd))
    room, address = ctypes.create_string_buffer(256), ctypes.create_string_buffer(b"\x01\0x")
    yield "sendmsg", SENDMSG, channel, room, 0
    yield "recvmsg", RECVMSG, channel, room, 0x40
    yield "sendto an address", SENDTO, channel, b"", 0, 0, address, 3
    yield "sendto an address with a low half of 0", SENDTO, channel, b"", 0, 0, HIGH, 3


def writing():
    for flags in (1, 2, 3, 0x40, 0x200, 0x400, 0x2000, 0x410000, 0x80001, 0x1000):
        yield f"open {flags:#x}", OPENAT, AT_FDCWD, SOURCE, flags, 0o600


def process_settings():
    for option, value in (
        (1, 0),  # PR_SET_PDEATHSIG: keep running without the zygote
        (1, 9),
        (4, 1),  # PR_SET_DUMPABLE
        (15, b"kworker/0:0\0"),  # PR_SET_NAME
        (22, 1),  # PR_SET_SECCOMP
        (33, 1),  # PR_MCE_KILL
        (36, 1),  # PR_SET_CHILD_SUBREAPER
        (0x59616D61, OTHER),  # PR_SET_PTRACER
    ):
        yield f"prctl {option}", PRCTL, option, value, 0, 0, 0
    for flags in (17, 0x8000 | 17, 0x20000000 | 17, 0x10000000 | 17, 0x4111, 9):
        yield f"clone {flags:#x}", CLONE, flags, 0, 0, 0, 0
    for operation, flags in ((1, 0), (1, 8), (0, 0), (2, 0)):
        yield f"seccomp {operation} {flags}", SECCOMP, operation, flags, NULL


def other_pipes():
    room = ctypes.create_string_buffer(8)
    yield "notification pipe", PIPE2, room, 0x80
    read, _ = os.pipe()
    for command, argument in ((1031, 64 << 20), (1032, 0), (1033, 1), (1034, 0)):
        yield f"fcntl {command}", FCNTL, read, command, argument  # pipe size, seals


TRIES = {
    "signal-by-descriptor": signal_by_descriptor,
    "signal-by-ioctl": signal_by_ioctl,
    "lease-on-its-source": lease,
    "blocking-of-shared-descriptors": shared_blocking,
    "advice-on-shared-memory": advice,
    "locked-and-huge-memory": locked_memory,
    "futex-of-a-thread": futex_of_a_thread,
    "others-by-id": others_by_id,
    "descriptors-over-the-channel": over_the_channel,
    "open-to-write-without-python": writing,
    "process-settings": process_settings,
    "pipe-sizes-and-seals": other_pipes,
}


def is_socket(fd):
    try:
        return os.fstat(fd).st_mode & 0o170000 == 0o140000
    except OSError:
        return False


def attempt(name):
    """Raise PermissionError if every call fails with EPERM; otherwise return those that did not."""
    libc = ctypes.CDLL(None, use_errno=True)
    passed = []
    for label, number, *arguments in TRIES[name]():
        ctypes.set_errno(0)
        result = libc.syscall(ctypes.c_long(number), *(wide(each) for each in arguments))
        if result != -1 or ctypes.get_errno() != errno.EPERM:
            passed.append(f"{label}: {result} {errno.errorcode.get(ctypes.get_errno())}")
    if passed:
        return passed
    raise PermissionError(errno.EPERM, name)


def wide(value):
    return ctypes.c_long(value) if isinstance(value, int) else value
