"""Attack by level: what is promised.  isolation.md in docs/ has the same table."""

from typing import NamedTuple

CONTAINED = "contained"
RETIRED = "contained; the process is retired"
NOT = "**not contained**"
SHARED = f"{NOT}: one interpreter"
ENDLESS = f"{NOT}: holds the platform"
LETHAL = f"{NOT}: ends the platform"
MAY = f"{NOT}: may do what the platform may"


class Attack(NamedTuple):
    """``outcomes``: how the attacking invocation may end; ``says``: with what words."""

    name: str
    what: str
    inline: str
    outcomes: str = "ok"
    says: str = ""
    process: str = CONTAINED
    warm: str = CONTAINED
    at_warm: str = ""
    """Permitted outcomes at ``warm``, if they differ."""

    def ends(self, level: str) -> list[str]:
        return ((level == "warm" and self.at_warm) or self.outcomes).split()

    def promise(self, level: str) -> str:
        return str(getattr(self, level))


CPU, MEMORY, RAISES, DIES = "exceededCpu", "exceededMemory", "exception", "internalError"
PERMISSION = "PermissionError"

ATTACKS = [
    # --- what invocations share ---
    Attack("module-globals", "changes globals of its modules", CONTAINED),
    Attack("own-class", "changes attributes of its own classes", CONTAINED),
    Attack(
        "own-functions",
        "changes code, defaults and `__globals__` of its own functions",
        CONTAINED,
    ),
    Attack(
        "leftover-destructor",
        "leaves garbage whose destructor changes its modules later",
        CONTAINED,
    ),
    Attack(
        "leftover-generator",
        "leaves a generator that changes its modules when it is closed",
        CONTAINED,
    ),
    Attack(
        "leftover-reference",
        "leaves a weak reference to its class, with a callback",
        CONTAINED,
    ),
    Attack("library-class", "changes a class of the standard library", SHARED, "ok exception"),
    Attack(
        "library-class-imported-late",
        "the same, of a module that it is the first to import",
        SHARED,
        "ok exception",
    ),
    Attack("library-function", "replaces a function of the standard library", CONTAINED),
    Attack(
        "library-by-a-side-door",
        "the same, on a module got from `importlib` or `inspect`",
        SHARED,
        "ok exception",
    ),
    Attack(
        "library-by-the-library",
        "the same, by way of `unittest.mock`",
        SHARED,
        f"ok {DIES}",
        warm=RETIRED,
    ),
    Attack("patched-builtins", "replaces and adds builtins", CONTAINED, f"ok {DIES}"),
    Attack("sys-modules", "swaps modules in `sys.modules`", CONTAINED),
    Attack("environ", "changes `os.environ`", SHARED, warm=RETIRED),
    Attack("import-path", "changes `sys.path`", SHARED, warm=RETIRED),
    Attack("interpreter", "changes recursion limit and collector", SHARED, warm=RETIRED),
    Attack("traced", "traces every function of the process", SHARED, at_warm=RAISES),
    Attack("profiled", "profiles every function of the process", SHARED, at_warm=RAISES),
    Attack("signal-handlers", "sets a signal handler", SHARED, RAISES, PERMISSION),
    Attack("at-exit", "registers a function for the end of the process", SHARED),
    Attack("thread", "starts a thread", SHARED, RAISES, "can't start new thread"),
    Attack("leftover-task", "leaves a task running", SHARED),
    Attack("asyncio-policy", "sets asyncio's event loop policy", SHARED, warm=RETIRED),
    Attack(
        "event-loop", "changes settings of the event loop", SHARED, "ok exception", warm=RETIRED
    ),
    Attack("loop-method", "replaces a method of the event loop", SHARED, warm=RETIRED),
    Attack("loop-stopped", "stops the event loop", LETHAL, "ok exception internalError"),
    Attack("sdk-function", "replaces functions of the SDK", CONTAINED),
    Attack("sdk-class", "changes a class of the SDK", SHARED, "ok exception"),
    Attack("sdk-console", "replaces `console.log`", CONTAINED, "ok exception"),
    Attack("env", "changes and adds names on `env`", CONTAINED),
    Attack("env-json", "changes the value of a JSON variable", CONTAINED, "ok exception"),
    Attack("env-binding", "replaces a method of a binding", CONTAINED),
    Attack("logging-configured", "configures `logging`", SHARED, warm=RETIRED),
    Attack(
        "library-registries",
        "changes registries and defaults of the library",
        SHARED,
        warm=RETIRED,
    ),
    Attack(
        "library-function-attribute",
        "sets attributes and defaults of a library function",
        SHARED,
        warm=RETIRED,
    ),
    Attack(
        "stand-in-closure",
        "replaces the functions in the closures of `os.listdir`, `os.dup` and `time.time`",
        SHARED,
        warm=RETIRED,
    ),
    Attack(
        "stand-in-attribute",
        "sets attributes and defaults of `open` and `os.stat`",
        SHARED,
        warm=RETIRED,
    ),
    Attack(
        "platform-defaults",
        "changes keyword defaults of a class of file objects",
        SHARED,
        at_warm=DIES,
    ),
    Attack(
        "interpreter-objects",
        "changes sets, dicts and objects of `os`, `sys`, `gc` and `builtins`",
        SHARED,
        warm=RETIRED,
    ),
    Attack("codec-registered", "registers a codec", SHARED, warm=RETIRED),
    Attack("audit-hook", "adds an audit hook", SHARED, RAISES, PERMISSION),
    Attack("all-tasks-cancelled", "cancels all that `asyncio.all_tasks()` gives", CONTAINED),
    Attack("generator-exit", "raises GeneratorExit", CONTAINED, RAISES, "GeneratorExit"),
    Attack(
        "generator-exit-in-a-task",
        "the same, in a task of its own",
        CONTAINED,
        RAISES,
        "GeneratorExit",
    ),
    Attack(
        "exception-that-raises",
        "raises an exception whose attributes raise SystemExit",
        CONTAINED,
        RAISES,
        "cannot be shown",
    ),
    Attack("random-seeded", "seeds `random`", CONTAINED),
    Attack(
        "function-globals",
        "changes a library's names by way of a function's `__globals__`",
        SHARED,
        warm=RETIRED,
    ),
    Attack(
        "library-method",
        "replaces the code of a method of a library class",
        SHARED,
        warm=f"{NOT}: the process is shared",
    ),
    Attack(
        "equal-to-anything",
        "puts text into `sys.path` that calls itself equal to any",
        SHARED,
        warm=RETIRED,
    ),
    Attack("equal-level", "the same, as the level of the root logger", SHARED, warm=RETIRED),
    Attack("names-of-os", "replaces `os.getcwd` in the module itself", SHARED, at_warm=DIES),
    Attack("names-of-sys", "the same, `sys.intern`", SHARED, at_warm=DIES),
    Attack(
        "names-of-the-scheduler",
        "the same, functions that the scheduler calls (`time.thread_time`, `gc.get_count`)",
        SHARED,
        at_warm=DIES,
    ),
    Attack(
        "names-of-builtins",
        "the same, a builtin that the audit hook calls",
        SHARED,
        "ok exception",
        at_warm=DIES,
    ),
    Attack("asyncgen-hooks", "sets the hooks of asynchronous generators", SHARED, at_warm=RAISES),
    Attack(
        "finder-patched",
        "patches a finder in `sys.meta_path`",
        SHARED,
        "ok exception",
    ),
    Attack("path-finders", "puts a finder into `sys.path_importer_cache`", SHARED, warm=RETIRED),
    Attack("loggers-patched", "patches methods of loggers", SHARED, warm=RETIRED),
    Attack(
        "cache-poisoned",
        "puts a wrong entry into a cache of the library (`re._cache`)",
        SHARED,
        warm=f"{NOT}: caches are not compared",
    ),
    Attack(
        "objects-by-the-collector",
        "finds a library's names with `gc` and changes them",
        SHARED,
        at_warm=RAISES,
    ),
    # --- CPU and time ---
    Attack("busy-loop", "loops for ever", ENDLESS, CPU),
    Attack("busy-in-c", "loops in C: `sum(range(10**12))`", ENDLESS, CPU),
    Attack("busy-regex", "a regular expression that backtracks for ever", ENDLESS, CPU),
    Attack("busy-and-deaf", "loops, and catches every exception", ENDLESS, CPU),
    Attack("busy-timer-disarmed", "takes off the CPU timer, then loops", ENDLESS, CPU),
    Attack("timer-disarmed", "takes off the CPU timer", SHARED, RAISES, "Operation not permitted"),
    Attack(
        "signals-masked", "masks the CPU timer's signal, then loops", ENDLESS, CPU, "LimitExceeded"
    ),
    Attack(
        "timers-without-python", "takes timers off by bare system calls", SHARED, RAISES, PERMISSION
    ),
    Attack("busy-in-steps", "loops with an `await` in each turn", ENDLESS, CPU),
    Attack("busy-tasks", "tasks that start two more each", ENDLESS, f"{CPU} {MEMORY}"),
    Attack("busy-after-response", "answers, then loops in waitUntil work", ENDLESS, CPU),
    Attack("time-sleep", "`time.sleep`", f"{NOT}: all wait with it"),
    Attack("never-answers", "awaits what never comes", f"{NOT}: waits for ever", RAISES, "hung"),
    Attack(
        "speaks-from-the-grave",
        "leaves destructors to be run in another's name",
        SHARED,
        RAISES,
        "hung",
    ),
    Attack("exit-in-wait-until", "SystemExit in waitUntil work", CONTAINED, RAISES, "SystemExit"),
    Attack("exit-in-a-task", "SystemExit in a task of its own", LETHAL, "ok exception"),
    # --- memory ---
    Attack("memory-in-one-block", "allocates 1 GB at once", SHARED, MEMORY),
    Attack("memory-in-many", "allocates without end, in small pieces", SHARED, f"{MEMORY} {CPU}"),
    Attack("memory-and-deaf", "the same, and catches MemoryError", SHARED, f"{MEMORY} {CPU}"),
    Attack("memory-mapped", "maps 1 GB of shared memory", SHARED, f"{MEMORY} {RAISES}"),
    Attack("recursion", "recursion without end", CONTAINED, RAISES, "RecursionError"),
    Attack(
        "stack-exhausted",
        "the same, with the limit raised",
        LETHAL,
        f"{RAISES} {DIES} {MEMORY} {CPU}",
    ),
    # --- the end of processes ---
    Attack("os-exit", "`os._exit`", LETHAL, DIES),
    Attack("death-after-response", "answers, then `os._exit`", LETHAL, DIES),
    Attack("segfault", "reads address 0 with `ctypes`", LETHAL, DIES),
    Attack("abort", "`os.abort`", LETHAL, DIES),
    Attack("kill-itself", "SIGKILL to itself", LETHAL, RAISES, PERMISSION),
    Attack("kill-parent", "SIGKILL to the process that started it", MAY, RAISES, PERMISSION),
    Attack("kill-everyone", "SIGKILL to every process", MAY, RAISES, PERMISSION),
    Attack("fork-bomb", "forks for ever", MAY, RAISES, PERMISSION),
    Attack("run-a-program", "runs a program", MAY, RAISES, PERMISSION),
    Attack("become-a-program", "becomes another program", MAY, RAISES, PERMISSION),
    Attack("program-from-memory", "runs a program from memory", MAY, RAISES, PERMISSION),
    Attack(
        "thread-without-python", "threads and forks by bare system calls", MAY, RAISES, PERMISSION
    ),
    Attack("raised-limits", "raises its own limits", MAY, RAISES, "Error"),
    Attack(
        "raised-limits-without-python", "the same, by bare system calls", MAY, RAISES, PERMISSION
    ),
    # --- arguments of allowed system calls ---
    Attack(
        "signal-by-descriptor",
        "signals a process through a descriptor of its own (`F_SETOWN`, `F_SETSIG`, `O_ASYNC`)",
        MAY,
        RAISES,
        PERMISSION,
    ),
    Attack(
        "signal-by-ioctl",
        "the same by `ioctl` (`FIOASYNC`, `FIOSETOWN`)",
        MAY,
        RAISES,
        PERMISSION,
    ),
    Attack(
        "lease-on-its-source",
        "takes a lease or a lock on a file, which holds up its writers",
        MAY,
        RAISES,
        PERMISSION,
    ),
    Attack(
        "blocking-of-shared-descriptors",
        "makes a descriptor that others have non-blocking",
        MAY,
        RAISES,
        PERMISSION,
    ),
    Attack(
        "advice-on-shared-memory",
        "gives advice on memory that is the machine's (`MADV_HWPOISON`)",
        MAY,
        RAISES,
        PERMISSION,
    ),
    Attack(
        "locked-and-huge-memory",
        "maps locked and huge pages",
        MAY,
        RAISES,
        PERMISSION,
    ),
    Attack(
        "futex-of-a-thread",
        "names threads of others by `futex`",
        MAY,
        RAISES,
        PERMISSION,
    ),
    Attack(
        "others-by-id",
        "reads CPU clocks, limits, affinity of other processes",
        MAY,
        RAISES,
        PERMISSION,
    ),
    Attack(
        "descriptors-over-the-channel",
        "sends descriptors over the channel, or to an address",
        MAY,
        RAISES,
        PERMISSION,
    ),
    Attack(
        "open-to-write-without-python",
        "opens files to write by bare system calls",
        MAY,
        RAISES,
        PERMISSION,
    ),
    Attack(
        "process-settings",
        "changes settings of its process (`prctl`, `clone`, `seccomp`)",
        MAY,
        RAISES,
        PERMISSION,
    ),
    Attack(
        "pipe-sizes-and-seals",
        "grows pipes, seals files",
        MAY,
        RAISES,
        PERMISSION,
    ),
    # --- memory of others ---
    Attack("ptrace-a-sibling", "`ptrace` of another process", MAY, RAISES, PERMISSION),
    Attack("memory-of-another", "reads another process's `/proc/PID/mem`", MAY, RAISES, PERMISSION),
    Attack("memory-of-another-by-call", "`process_vm_readv`", MAY, RAISES, PERMISSION),
    # --- files, sockets, terminal ---
    Attack("read-passwords", "reads `/etc/passwd`", MAY, RAISES, PERMISSION),
    Attack("read-ssh-keys", "lists `~/.ssh`", MAY, RAISES, "Error"),
    Attack("read-the-project", "reads a file beside its own folder", MAY, RAISES, "Error"),
    Attack(
        "read-the-hidden",
        "reads a file whose name begins with a dot, or the state directory, in its own folder",
        MAY,
        RAISES,
        PERMISSION,
    ),
    Attack(
        "environment-of-the-platform", "reads the platform's environment", MAY, RAISES, PERMISSION
    ),
    Attack("write-its-own-source", "writes to its own source", MAY, RAISES, PERMISSION),
    Attack("descriptors-leaked", "leaves descriptors open", MAY, warm=RETIRED),
    Attack("page-grown", "writes to the files that it has inherited", MAY),
    Attack(
        "write-anywhere",
        "writes to `/dev/shm`, home, or the machine's own `/tmp`",
        MAY,
        RAISES,
        PERMISSION,
    ),
    Attack(
        "write-files-without-end",
        "writes files to `/tmp`, which is in memory, without end",
        CONTAINED,
        f"{MEMORY} {CPU} {RAISES}",
    ),
    Attack(
        "write-empty-files-without-end",
        "the same, with empty folders",
        CONTAINED,
        f"{MEMORY} {RAISES} {CPU}",
    ),
    Attack(
        "another-file-system",
        "replaces its file system in memory by an object of its own",
        CONTAINED,
        RAISES,
        PERMISSION,
    ),
    Attack("remove-its-own-source", "removes its own source", MAY, RAISES, PERMISSION),
    Attack("symbolic-link", "makes a symbolic link", MAY, RAISES, PERMISSION),
    Attack("change-folder", "changes the current folder", SHARED, RAISES, PERMISSION),
    Attack("tcp-socket", "connects to a port", MAY, RAISES, PERMISSION),
    Attack("unix-socket", "connects to a local socket", MAY, RAISES, PERMISSION),
    Attack("dns", "looks up a host name", MAY, RAISES, "gaierror"),
    Attack("namespaces", "makes namespaces of its own", MAY, RAISES, PERMISSION),
    Attack("io-uring", "`io_uring`, which is past every filter", MAY, RAISES, PERMISSION),
    Attack("type-on-the-terminal", "types on the terminal (TIOCSTI)", MAY, RAISES, PERMISSION),
    Attack("terminal-escapes", "writes escape codes to descriptors 1 and 2", MAY),
    Attack("stderr-flood", "a million lines to descriptor 2", MAY, f"ok {CPU}"),
    # --- the channel ---
    Attack("closed-descriptors", "closes all descriptors", LETHAL, DIES),
    Attack("garbage", "writes garbage on the channel", "no channel", DIES, at_warm=RAISES),
    Attack("frame-of-2-gb", "a frame that claims 2 GB", "no channel", DIES, at_warm=RAISES),
    Attack(
        "half-a-frame", "half a frame, then a loop", "no channel", f"{CPU} {DIES}", at_warm=RAISES
    ),
    Attack("wrong-frames", "frames that only others say", "no channel", DIES, at_warm=RAISES),
    Attack("two-responses", "answers twice", "no channel", at_warm=RAISES),
    Attack("two-ends", "ends twice, and goes on to speak", "no channel", at_warm=RAISES),
    Attack(
        "end-of-another", "ends other invocations", "no channel", "ok internalError", at_warm=RAISES
    ),
    Attack("invented-outcome", "an outcome that there is not", "no channel", DIES, at_warm=RAISES),
    Attack("response-of-wrong-types", "a number for a body", "no channel", DIES, at_warm=RAISES),
    Attack(
        "response-of-no-status", "a status that there is not", "no channel", DIES, at_warm=RAISES
    ),
    Attack("wake-of-wrong-types", "a text for a time", "no channel", DIES, at_warm=RAISES),
    Attack("call-of-wrong-types", "numbers for requests", "no channel", at_warm=RAISES),
    Attack(
        "log-of-wrong-types",
        "a console line at no time",
        "no channel",
        f"ok {DIES}",
        at_warm=RAISES,
    ),
    Attack(
        "nested-in-a-frame",
        "lists in lists in a frame, 5,000 deep",
        "no channel",
        DIES,
        at_warm=RAISES,
    ),
    Attack(
        "expanding-frame", "a frame of 100 MB of empty objects", "no channel", DIES, at_warm=RAISES
    ),
    Attack(
        "crowded-calls",
        "calls of half a million empty lists each",
        "no channel",
        f"ok {MEMORY} {CPU}",
        at_warm=RAISES,
    ),
    Attack(
        "crowded-logs",
        "console lines of half a million empty lists each",
        "no channel",
        f"ok {CPU}",
        at_warm=RAISES,
    ),
    Attack(
        "unread-responses", "responses of 80 MB, none of which it reads", CONTAINED, f"ok {CPU}"
    ),
    Attack(
        "asks-and-never-reads", "asks 100,000 times, reads no answer", "no channel", at_warm=RAISES
    ),
    Attack("calls-without-end", "20,000 calls at a time", "no channel", MEMORY, at_warm=RAISES),
    Attack("half-characters", "half a character wherever text goes", CONTAINED, RAISES, "\ufffd"),
    Attack("console-of-objects", "console lines of what has no form", CONTAINED),
    Attack("console-past-the-sdk", "the same, nested deeply, past the SDK", CONTAINED),
    Attack("log-flood", "a million console lines", f"{NOT}: holds the platform", f"ok {CPU}"),
    Attack("log-flood-of-nothing", "endless empty console lines", CONTAINED, f"ok {CPU}"),
    Attack(
        "log-flood-raw",
        "a flood of console lines past the SDK",
        "no channel",
        f"ok {CPU}",
        at_warm=RAISES,
    ),
    Attack("wake-flood", "100,000 timers past the SDK", "no channel", f"ok {CPU}", at_warm=RAISES),
    Attack(
        "stream-of-another", "reads other requests' bodies", CONTAINED, RAISES, "different request"
    ),
    Attack(
        "too-many-subrequests", "more subrequests than allowed", CONTAINED, RAISES, "subrequests"
    ),
]

WALKS = {
    "running-loop": "`asyncio.get_running_loop()`",
    "event-loop": "`asyncio.get_event_loop()` and the policy",
    "task-loop": "the current task and its `get_loop()`",
    "future-loop": "a future, its callbacks and `get_loop()`",
    "handles": "handles of `call_soon` and `call_later`, the loop's own lists of them",
    "handler-context": "the context that an exception handler is given",
    "context-variables": "`contextvars`: a copy of the context, an empty one, the SDK's own",
    "environment-of-the-sdk": "the SDK's variables for `env` and the invocation",
    "frames": "`sys._getframe` and `inspect.stack`, down to the last `f_back`",
    "frames-of-a-task": "frames, stack and coroutine of a task",
    "frames-of-a-callback": "the frames below a callback of the loop",
    "frames-of-an-import": "the frames below a module that is imported",
    "frames-of-an-attribute": "the frames below a property that the platform reads",
    "frames-of-a-destructor": "the frames below a destructor that the collector runs",
    "current-coroutine": "the coroutine that has called the handler, and its `cr_frame`",
    "traceback-of-a-binding": "the traceback of an exception of a binding",
    "traceback-of-time-sleep": "the tracebacks of `time.sleep` with wrong arguments",
    "tasks-of-asyncio": "asyncio's own registries of tasks",
    "asynchronous-generators": "`sys.get_asyncgen_hooks()`",
    "signal-handlers": "`signal.getsignal` of every signal",
    "collector": "`gc.get_objects`, `get_referrers`, `get_referents`: refused",
    "modules-of-the-platform": "the platform's own modules, by a function's `__globals__`",
    "import-function": "`__import__`, a view of a library module, and their types",
    "binding-methods": "`env`, a binding and its bound methods",
    "request-and-sdk": "the request, the SDK's modules, the entry point",
    "subclasses": "`__subclasses__()` of `object` and of `WorkerEntrypoint`",
    "closures-of-the-library": "closures of functions that the platform has replaced",
    "console-streams": "`sys.stdout` and `console`",
    "threads-and-locals": "`threading.enumerate()`",
    "loggers-and-weak-references": "`logging`, `weakref`, `abc`",
}
"""Searches for a neighbour of an invocation, at ``warm``: by name, from where each begins."""

IMPORT_WALKS = {
    "vendored": "the frames below the import of a package in `python_modules`",
    "metaclass": "a metaclass, where the platform looks at all classes",
    "subclasses": "the same, where `__subclasses__()` is asked",
    "equality": "`__eq__` of a value in `sys.path`, where the platform compares it",
    "hash": "`__hash__` of a name that is imported",
    "attributes": "`__dict__` of a value in a library module, where its package is first imported",
    "refusal": "the traceback of what the audit hook refuses",
    "failed_import": "the traceback of an import that fails in the platform's code",
    "recursion": "tracebacks of the platform's functions, called at every depth of a recursion",
    "interpreter": "an interpreter of its own, without the audit hook",
}
"""Searches, at ``warm``, from code that runs while the platform imports or compares something."""
