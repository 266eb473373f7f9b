"""Allow-list of an isolate's system calls: the reason for each, and the permitted arguments.

A call that is not in ``CALLS``, or whose arguments match none of its alternatives, fails with
EPERM.  ``REFUSED`` and ``NARROWED`` withdraw calls and arguments once an isolate is set up, before
worker code runs.  docs/explanation/isolation.md lists the same reasons; a test compares them.

Arguments are checked where a value has effects outside the process: signals by file descriptor
(``fcntl``, ``ioctl``), other processes by id (``clock_gettime``, ``prlimit64``, ``futex``), memory
of the whole machine (``madvise``, ``mmap``), writing (``open``), state shared through a file
descriptor.
"""

from __future__ import annotations

from typing import NamedTuple

_CLONE_CHILD = 0x1000000 | 0x200000  # CLONE_CHILD_SETTID, CLONE_CHILD_CLEARTID
_SIGCHLD = 17
_O_READ = 0x80000 | 0x800 | 0x10000 | 0x20000 | 0x8000 | 0x4000 | 0x100 | 0x200000 | 0x40000
"""CLOEXEC, NONBLOCK, DIRECTORY, NOFOLLOW, LARGEFILE (both architectures), NOCTTY, PATH, NOATIME.

Not WRONLY, RDWR, CREAT, TRUNC, APPEND, TMPFILE, and not O_ASYNC, which sends signals.
"""
_O_PIPE = 0x80000 | 0x800 | 0x4000  # CLOEXEC, NONBLOCK, DIRECT; not a notification pipe
_MAP = 0x1 | 0x2 | 0x10 | 0x20 | 0x100 | 0x800 | 0x1000 | 0x4000 | 0x8000 | 0x10000 | 0x20000
_MAP_NOREPLACE = 0x100000
"""Not LOCKED or HUGETLB: they take memory from a pool that the whole machine shares."""
_ADVICE = (0, 1, 2, 3, 4, 8, 10, 11, 14, 15, 16, 17, 18, 19)
"""Own pages only; not HWPOISON and SOFT_OFFLINE (machine-wide), MERGEABLE, REMOVE, PAGEOUT."""
_FUTEX = (0, 1, 3, 4, 5, 9, 10)
_FUTEX_FLAGS = 128 | 256  # PRIVATE, CLOCK_REALTIME
"""WAIT, WAKE, REQUEUE, CMP_REQUEUE, WAKE_OP, WAIT_BITSET, WAKE_BITSET; not the PI operations,
which identify other threads by id."""
_CLOCKS = tuple(range(12))
"""The fixed clock ids; a negative id is the CPU clock of any process."""
_F_DUPFD, _F_GETFD, _F_SETFD, _F_GETFL, _F_SETFL, _F_DUPFD_CLOEXEC = 0, 1, 2, 3, 4, 1030
_TCGETS, _FIONREAD, _FIONBIO, _FIONCLEX, _FIOCLEX = 0x5401, 0x541B, 0x5421, 0x5450, 0x5451
_PR_SET_PDEATHSIG, _SIGKILL = 1, 9
_RLIMIT_CPU = 0


class Check(NamedTuple):
    """Condition: the argument's low 32 bits, without those in ``ignoring``, are one of ``values``.

    ``wide``: the high 32 bits must be 0 too, for a pointer that must be null.
    """

    argument: int
    values: tuple[int, ...] = (0,)
    ignoring: int = 0
    wide: bool = False


class SystemCall(NamedTuple):
    """An allowed system call: its number on x86_64 and aarch64 (-1: does not exist), its reason."""

    x86_64: int
    aarch64: int
    reason: str
    allowed: tuple[tuple[Check, ...], ...] = ()
    """Alternatives; all checks of at least one must hold.  Empty: any arguments."""


def _null(index: int) -> Check:
    return Check(index, wide=True)


def _only(index: int, *values: int) -> tuple[tuple[Check, ...], ...]:
    return ((Check(index, values),),)


def _flags(index: int, allowed: int) -> tuple[tuple[Check, ...], ...]:
    return ((Check(index, ignoring=allowed),),)


_OWN_DESCRIPTOR = "acts on a descriptor that it has already"
_OWN_MEMORY = "its own address space, within RLIMIT_AS and RLIMIT_DATA"
_OWN_ID = "reads an id of its own"
_OWN_SIGNALS = "its own signal handling; an isolate's is fixed before worker code runs"
_NAMES = "names and metadata, which Landlock does not hide; no content"
_READS_FILES = "reading only, by its flags; which files, Landlock says"
_FORKS = "a plain copy of the zygote: no thread, namespace or other parent; not for isolates"
_WAITS = "waits for its own descriptors or for time"
_CLOCK = "the machine's clocks and its own; not the CPU clock of another process"
_ENDS = "ends itself"
_LIMITS = "reads its own limits; a zygote sets RLIMIT_CPU, which none can raise, for each isolate"
_THREAD_STATE = "registers memory of its own thread with the kernel"

CALLS = {
    "access": SystemCall(21, -1, _NAMES),
    "brk": SystemCall(12, 214, _OWN_MEMORY),
    "clock_getres": SystemCall(229, 114, _CLOCK, _only(0, *_CLOCKS)),
    "clock_gettime": SystemCall(228, 113, _CLOCK, _only(0, *_CLOCKS)),
    "clock_nanosleep": SystemCall(230, 115, _WAITS, _only(0, *_CLOCKS)),
    "clone": SystemCall(56, 220, _FORKS, ((Check(0, (_SIGCHLD,), ignoring=_CLONE_CHILD),),)),
    "close": SystemCall(3, 57, _OWN_DESCRIPTOR),
    "close_range": SystemCall(436, 436, _OWN_DESCRIPTOR),
    "dup": SystemCall(32, 23, _OWN_DESCRIPTOR),
    "dup2": SystemCall(33, -1, _OWN_DESCRIPTOR),
    "dup3": SystemCall(292, 24, _OWN_DESCRIPTOR),
    "exit": SystemCall(60, 93, _ENDS),
    "exit_group": SystemCall(231, 94, _ENDS),
    "faccessat": SystemCall(269, 48, _NAMES),
    "faccessat2": SystemCall(439, 439, _NAMES),
    "fcntl": SystemCall(
        72,
        25,
        "copies a descriptor, reads its flags, sets close-on-exec (a zygote: also non-blocking); "
        "no signals (F_SETOWN, F_SETSIG, O_ASYNC), leases, locks, seals or pipe sizes",
        (
            (Check(1, (_F_DUPFD, _F_GETFD, _F_SETFD, _F_GETFL, _F_DUPFD_CLOEXEC)),),
            (Check(1, (_F_SETFL,)), Check(2, ignoring=_O_READ | 3)),
        ),
    ),
    "fork": SystemCall(57, -1, _FORKS),
    "fstat": SystemCall(5, 80, _OWN_DESCRIPTOR),
    "futex": SystemCall(
        202,
        98,
        "waits for and wakes by addresses in its own memory; no operation that names a thread",
        ((Check(1, _FUTEX, ignoring=_FUTEX_FLAGS),),),
    ),
    "getcwd": SystemCall(79, 17, _NAMES),
    "getdents64": SystemCall(217, 61, "lists a folder that Landlock let it open"),
    "getegid": SystemCall(108, 177, _OWN_ID),
    "geteuid": SystemCall(107, 175, _OWN_ID),
    "getgid": SystemCall(104, 176, _OWN_ID),
    "getpid": SystemCall(39, 172, _OWN_ID),
    "getppid": SystemCall(110, 173, "reads the id of its zygote, which it cannot use"),
    "getrandom": SystemCall(318, 278, "random bytes, which do not run out"),
    "getrlimit": SystemCall(97, 163, _LIMITS),
    "getrusage": SystemCall(98, 165, "reads its own use of the machine"),
    "gettid": SystemCall(186, 178, _OWN_ID),
    "gettimeofday": SystemCall(96, 169, _CLOCK),
    "getuid": SystemCall(102, 174, _OWN_ID),
    "ioctl": SystemCall(
        16,
        29,
        "asks if it is a terminal, how much can be read, sets close-on-exec (a zygote: also "
        "non-blocking); no signals (FIOASYNC, FIOSETOWN) and no typing on a terminal (TIOCSTI)",
        _only(1, _TCGETS, _FIONREAD, _FIONBIO, _FIONCLEX, _FIOCLEX),
    ),
    "lseek": SystemCall(8, 62, _OWN_DESCRIPTOR),
    "lstat": SystemCall(6, -1, _NAMES),
    "madvise": SystemCall(
        28,
        233,
        "its own pages; not MADV_HWPOISON, MADV_REMOVE and others that reach shared ones",
        _only(2, *_ADVICE),
    ),
    "mmap": SystemCall(
        9,
        222,
        "its own address space, executable too, as code adds no right here; files as they were "
        "opened; no locked or huge pages",
        _flags(3, _MAP | _MAP_NOREPLACE),
    ),
    "mprotect": SystemCall(10, 226, _OWN_MEMORY),
    "mremap": SystemCall(25, 216, _OWN_MEMORY),
    "munmap": SystemCall(11, 215, _OWN_MEMORY),
    "nanosleep": SystemCall(35, 101, _WAITS),
    "newfstatat": SystemCall(262, 79, _NAMES),
    "open": SystemCall(2, -1, _READS_FILES, _flags(1, _O_READ)),
    "openat": SystemCall(257, 56, _READS_FILES, _flags(2, _O_READ)),
    "pipe": SystemCall(22, -1, "a pipe to itself, within RLIMIT_NOFILE"),
    "pipe2": SystemCall(293, 59, "a pipe to itself, within RLIMIT_NOFILE", _flags(1, _O_PIPE)),
    "poll": SystemCall(7, -1, _WAITS),
    "ppoll": SystemCall(271, 73, _WAITS),
    "prctl": SystemCall(
        157,
        167,
        "a fork of the zygote asks to end with its parent; nothing else, and not for isolates",
        ((Check(0, (_PR_SET_PDEATHSIG,)), Check(1, (_SIGKILL,))),),
    ),
    "pread64": SystemCall(17, 67, _OWN_DESCRIPTOR),
    "prlimit64": SystemCall(
        302,
        261,
        _LIMITS,
        ((_null(0), _null(2)), (_null(0), Check(1, (_RLIMIT_CPU,)))),
    ),
    "pselect6": SystemCall(270, 72, _WAITS),
    "read": SystemCall(0, 63, _OWN_DESCRIPTOR),
    "readlink": SystemCall(89, -1, _NAMES),
    "readlinkat": SystemCall(267, 78, _NAMES),
    "readv": SystemCall(19, 65, _OWN_DESCRIPTOR),
    "recvfrom": SystemCall(45, 207, "reads from the channel; there is no other socket"),
    "recvmsg": SystemCall(47, 212, "a zygote is given the channels of its forks; not for isolates"),
    "restart_syscall": SystemCall(219, 128, "the kernel's own, after a signal"),
    "rseq": SystemCall(334, 293, _THREAD_STATE),
    "rt_sigaction": SystemCall(13, 134, _OWN_SIGNALS),
    "rt_sigprocmask": SystemCall(14, 135, _OWN_SIGNALS),
    "rt_sigreturn": SystemCall(15, 139, _OWN_SIGNALS),
    "sched_getaffinity": SystemCall(204, 123, "how many processors it may use", ((_null(0),),)),
    "sched_yield": SystemCall(24, 124, "gives its turn away"),
    "seccomp": SystemCall(
        317,
        277,
        "a fork of the zygote puts on the isolates' filter, without listeners; not for isolates",
        ((Check(0, (1,)), Check(1)),),
    ),
    "select": SystemCall(23, -1, _WAITS),
    "sendto": SystemCall(
        44, 206, "writes to the channel, to no address; no descriptors go with it", ((_null(4),),)
    ),
    "set_robust_list": SystemCall(273, 99, _THREAD_STATE),
    "set_tid_address": SystemCall(218, 96, _THREAD_STATE),
    "setitimer": SystemCall(38, 103, "the CPU timer of an isolate, set before worker code runs"),
    "setrlimit": SystemCall(160, 164, _LIMITS, _only(0, _RLIMIT_CPU)),
    "sigaltstack": SystemCall(131, 132, _OWN_SIGNALS),
    "stat": SystemCall(4, -1, _NAMES),
    "statx": SystemCall(332, 291, _NAMES),
    "sysinfo": SystemCall(99, 179, "reads the machine's memory, by which libraries size buffers"),
    "times": SystemCall(100, 153, "reads its own CPU time"),
    "uname": SystemCall(63, 160, "reads the kernel's version"),
    "wait4": SystemCall(61, 260, "waits for its own children, of which an isolate has none"),
    "write": SystemCall(1, 64, _OWN_DESCRIPTOR),
    "writev": SystemCall(20, 66, _OWN_DESCRIPTOR),
}  # fmt: skip

REFUSED = (
    "clone", "fork", "prctl", "recvmsg", "rt_sigaction", "seccomp", "setitimer", "setrlimit",
)  # fmt: skip
"""Calls that a zygote needs and worker code in an isolate does not."""
NARROWED: dict[str, tuple[tuple[Check, ...], ...]] = {
    # The non-blocking flag is shared with every process that has the descriptor: siblings, zygote.
    "fcntl": _only(1, _F_DUPFD, _F_GETFD, _F_SETFD, _F_GETFL, _F_DUPFD_CLOEXEC),
    "ioctl": _only(1, _TCGETS, _FIONREAD, _FIONCLEX, _FIOCLEX),
    "prlimit64": ((_null(0), _null(2)),),
}
ON_A_DESCRIPTOR = (
    "read", "readv", "pread64", "write", "writev", "dup", "dup2", "dup3", "fcntl",
)  # fmt: skip
"""Calls that read, write or copy a file descriptor, without the socket calls ``recvfrom`` and
``sendto``."""
ENGINE_REFUSED = {
    "x86_64": {
        "socket": 41, "connect": 42, "bind": 49, "listen": 50, "execve": 59, "execveat": 322,
        "kill": 62, "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311,
        "pidfd_open": 434, "io_uring_setup": 425, "bpf": 321, "mount": 165, "unshare": 272,
        "setns": 308,
    },
    "aarch64": {
        "socket": 198, "connect": 203, "bind": 200, "listen": 201, "execve": 221, "execveat": 281,
        "kill": 129, "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271,
        "pidfd_open": 434, "io_uring_setup": 425, "bpf": 280, "mount": 40, "unshare": 97,
        "setns": 268,
    },
}  # fmt: skip
"""Calls refused to the embedded ClickHouse engine: connections, programs, other processes."""
_CLONE_THREAD = 0x10000
ONLY_THREADS = ((Check(0, (_CLONE_THREAD,), ignoring=~_CLONE_THREAD & 0xFFFFFFFF),),)
"""Flags of ``clone`` in the SQL process: threads of its own, no process."""
SQL_REFUSED = {
    "x86_64": {
        "fork": 57, "vfork": 58, "socketpair": 53, "accept": 43, "accept4": 288, "tkill": 200,
        "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297, "pidfd_send_signal": 424,
        "pidfd_getfd": 438, "process_madvise": 440, "perf_event_open": 298, "userfaultfd": 323,
        "keyctl": 250, "add_key": 248, "request_key": 249, "memfd_create": 319,
    },
    "aarch64": {
        "socketpair": 199, "accept": 202, "accept4": 242, "tkill": 130, "rt_sigqueueinfo": 138,
        "rt_tgsigqueueinfo": 240, "pidfd_send_signal": 424, "pidfd_getfd": 438,
        "process_madvise": 440, "perf_event_open": 241, "userfaultfd": 282, "keyctl": 219,
        "add_key": 217, "request_key": 218, "memfd_create": 279,
    },
}  # fmt: skip
"""Further calls refused to the SQL process, which needs neither sockets nor children."""
WORKERD_ALLOWED = frozenset({"socket", "connect", "listen", "execve"})
"""Of these, calls that workerd needs: it is started by execve, and serves and connects sockets."""
