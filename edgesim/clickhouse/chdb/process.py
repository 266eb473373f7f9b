"""Process that runs chdb: ``chdb_process FD PATH synced|unsynced LIMITS``.

It is a separate process because the engine is 330 MB, handles signals, locks its directory, and
hangs a fork of a process that imported it.  Each statement arrives as one end of a socket pair over
the control socket FD; ``wire`` defines its frames.

Each statement has its own session (under 1 ms): a session runs one statement at a time, refuses all
others while a streaming insert is open, and keeps SET and USE for later statements.  Settings are
applied by SET, so that the statement need not be changed.

The data of an INSERT is spooled to a file without a name, which the engine reads by FROM INFILE.
chdb's ``send_insert`` was dropped: it accepts data in pieces, but ``finish`` reports no error of
the write (a violated constraint, too many partitions, a full disk), so lost rows were acknowledged.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import msgspec

from edgesim.clickhouse import statements
from edgesim.clickhouse.chdb import tokens as chdb_tokens
from edgesim.clickhouse.chdb.checks import check
from edgesim.clickhouse.chdb.disk import NoDisk, SyncedFolder
from edgesim.clickhouse.chdb.limits import THREADS, StatementLimits, Watchdog
from edgesim.clickhouse.chdb.wire import (
    CHUNK_BYTES,
    SCRATCH,
    Chunk,
    End,
    Frame,
    Run,
    Started,
    StatementFailed,
    encode,
    read,
)
from edgesim.clickhouse.chdb.writes import Writes
from edgesim.clickhouse.exceptions import from_exception
from edgesim.errors import RunError
from edgesim.jail import landlock, seccomp
from edgesim.jail.lifeline import end_with_edgesim

LOCK_SECONDS = 5.0
LOCK_RETRY_SECONDS = 0.05
STREAMED = {"JSONEachRow", "TabSeparated", "TSV", "CSV"}
"""Formats whose pieces can be concatenated; chdb repeats the head and foot of others in each."""
ONE_BLOCK = {"min_insert_block_size_rows": "0", "min_insert_block_size_bytes": str(1 << 30)}
"""One block per insert, up to 1 GiB in memory, because an insert is atomic only within a block.

With the engine's default of 1,048,449 rows per block, an insert of 6 million rows with a bad last
one stored 3 million.
"""
WHOLE = {"timeout_overflow_mode": "throw"}
"""For statements that change data: with "break", one that times out succeeds with partial work."""
NO_RETRIES = {"http_max_tries": "1", "s3_retry_attempts": "0", "azure_sdk_max_retries": "0"}
"""Connections are refused in this process, so retries cannot succeed."""
SERVER = "max_server_memory_usage_to_ram_ratio=0.5"
"""Memory of all statements, Memory tables and caches together, as a share of the machine's.

The engine's own default, 0.9, leaves too little for the platform and the Workers.
"""
LITTLE_BYTES = 1 << 16
ONE_THREAD = {"max_threads": "1", "input_format_parallel_parsing": "0"}
"""For little data: waking other threads takes longer than reading it, twice on a busy machine."""
_SYSTEM = [
    *(f"{sys.base_prefix}/lib", "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib"),
    *("/etc/ld.so.cache", "/etc/localtime", "/etc/timezone", "/usr/share/zoneinfo"),
    *("/dev/urandom", "/dev/random", "/dev/zero", "/sys/devices/system/cpu", "/sys/fs/cgroup"),
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/loadavg", "/proc/sys/kernel"),
]
"""System files that the engine reads; not all of /proc, which has other processes' environments."""
_SPOOL = re.compile(r": (?:\(in file/uri /dev/fd/\d+\)|While reading from: /dev/fd/\d+)")
"""Mention of the spool file in the engine's errors, removed because the client has no such file."""


class Store(NamedTuple):
    """The database's folder, and the checks that a change is on its disk."""

    path: Path
    disk: SyncedFolder
    writes: Writes
    watchdog: Watchdog

    @contextmanager
    def change(self) -> Iterator[None]:
        """Wrap a change of data; at exit it is on disk, or ClickHouseError is raised."""
        self.disk.check()
        before = self.writes.mark()
        yield
        self.writes.check(before)
        self.disk.flush()


def main() -> None:
    """Serve statements until the platform closes the control socket."""
    _leave_the_end_to_the_platform()
    end_with_edgesim()
    control = socket.socket(fileno=int(sys.argv[1]))
    path = Path(sys.argv[2])
    try:
        path.mkdir(parents=True, exist_ok=True)
        disk = SyncedFolder(path) if sys.argv[3] == "synced" else NoDisk()
        _shut_the_rest_out(path)
        keeper = _open(path)
        chdb_tokens.repair(keeper, path)
        chdb_tokens.write_through(path, disk)
        limits = msgspec.json.decode(sys.argv[4], type=StatementLimits)
        store = Store(path, disk, Writes(keeper), Watchdog(_session(path), limits))
    except Exception as error:  # noqa: BLE001 (the platform must report any failure to start)
        control.sendall(encode(_failed(error)))
        return
    control.sendall(encode(End()))
    with ThreadPoolExecutor(THREADS) as pool:
        while (received := socket.recv_fds(control, 1, 1))[0]:
            # At the file descriptor limit the kernel closes the passed socket; its peer reads EOF.
            for descriptor in received[1]:
                pool.submit(_serve, store, socket.socket(fileno=descriptor))
    keeper.close()


def _leave_the_end_to_the_platform() -> None:
    # A terminal or service manager signals the whole process group; the platform ends this process.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _shut_the_rest_out(path: Path) -> None:
    """Restrict SQL to files of this database and libraries, because ``file()`` reads any path.

    Connections are refused too, from any function, engine or dictionary (``url``, ``s3``,
    ``remote``).

    Call it before chdb is imported: the kernel restricts the calling thread and its later children,
    not threads that already run.
    """
    scratch = path / SCRATCH
    for left in scratch.glob("clickhouse-embedded-*"):  # left by an engine that was killed
        shutil.rmtree(left)
    scratch.mkdir(exist_ok=True)
    library = [each for each in sys.path if "site-packages" in each] + _SYSTEM
    landlock.restrict([*library, f"/proc/{os.getpid()}"], write=[str(path), "/dev/null"])
    if seccomp.available():
        seccomp.engine_program().put_on()


def _open(path: Path) -> Any:
    """Open the session that keeps the database open between statements."""
    _wait_for_lock(path)
    return _session(path)


def _session(path: Path) -> Any:
    from chdb.session import Session

    return Session(f"{path}?{SERVER}")  # type: ignore[no-untyped-call]


def _wait_for_lock(path: Path) -> None:
    """Wait for the lock on ``status``, which a killed predecessor may hold until it has exited.

    Raises RunError after LOCK_SECONDS.
    """
    status = path / "status"
    if not status.exists():
        return
    with status.open("rb") as lock:
        for _ in range(int(LOCK_SECONDS / LOCK_RETRY_SECONDS)):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(LOCK_RETRY_SECONDS)
            else:
                return
    raise RunError(
        f"another process has the ClickHouse database {path} open; end it, or use another --state"
    )


def _serve(store: Store, channel: socket.socket) -> None:
    with channel, channel.makefile("rb") as reader, channel.makefile("wb") as writer:
        pipe = cast("BinaryIO", reader)
        try:
            run = cast("Run", read(pipe))
            data = _chunks(pipe)
            with store.watchdog.watching(channel) as tag:
                for frame in _answer(store, _limited(run, store.watchdog.limits, tag), data):
                    writer.write(encode(frame))
            writer.flush()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return  # the client has disconnected, and its insert was abandoned
        except OSError:
            traceback.print_exc()  # the platform sees only a closed socket; log the cause


def _limited(run: Run, limits: StatementLimits, tag: str) -> Run:
    settings = limits.settings(run.settings)
    comment = f"{settings.get('log_comment', '')} {tag}".lstrip()
    return msgspec.structs.replace(run, settings=settings | {"log_comment": comment})


def _answer(store: Store, run: Run, data: Iterator[bytes]) -> Iterator[Frame]:
    try:
        with _own_session(store.path, run) as session:
            yield from _execute(store, session, run, data)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:  # noqa: BLE001 (chdb raises RuntimeError and its own errors)
        for _ in data:
            pass  # drain data left by an early error: the sender reads only after sending all
        yield _failed(error)


@contextmanager
def _own_session(path: Path, run: Run) -> Iterator[Any]:
    session = _session(path)
    try:
        if run.database:
            session.query(f"USE {statements.named(run.database)}")
        whole = {} if statements.reads_only(run.sql) else WHOLE
        wanted = ONE_BLOCK | NO_RETRIES | run.settings | whole
        settings = {name: statements.setting(name, value) for name, value in wanted.items()}
        # Last, because a read-only session refuses further settings.
        readonly = settings.pop("readonly", None)
        session.query(f"SET {', '.join(settings.values())}")  # separately they cost 0.5 ms each
        if readonly is not None:
            session.query(f"SET {readonly}")
        yield session
    finally:
        session.close()


def _execute(store: Store, session: Any, run: Run, data: Iterator[bytes]) -> Iterator[Frame]:
    """Yield the frames of the response; Started only once a change is on disk."""
    insert = statements.as_insert(run.sql)
    sql = run.sql if insert is None else insert.head
    check(sql, store.watchdog.limits, run.settings, run.database)
    if insert is not None:
        with store.change():
            rows = _insert(store.path, session, run, insert, data)
        yield Started(run.default_format, rows)
    else:
        for _ in data:
            pass  # read the End: closing before the sender has sent it breaks its pipe
        yield from _query(store, session, run)
    yield End()


def _query(store: Store, session: Any, run: Run) -> Iterator[Frame]:
    wanted = statements.trailing_format(run.sql) or run.default_format
    what = statements.kind(run.sql)
    if what == "SELECT" and wanted in STREAMED:
        rows = session.send_query(run.sql, wanted)
        yield Started(wanted, None)
        for piece in rows:
            yield from map(Chunk, _slices(piece.bytes()))
        return
    if statements.reads_only(run.sql):
        result = session.query(run.sql, wanted)
    else:
        with store.change():
            try:
                result = session.query(run.sql, wanted)
            finally:
                store.watchdog.expect_mutations()
            chdb_tokens.write_through(store.path, store.disk)  # it may have created a table
    yield Started(wanted, result.rows_written() if what == "INSERT" else None)
    yield from map(Chunk, _slices(result.bytes()))


def _insert(
    path: Path, session: Any, run: Run, insert: statements.Insert, data: Iterator[bytes]
) -> int:
    """Run an INSERT with its data; return the engine's count of rows written."""
    # The file has no name: a kill leaves nothing behind, and * or {} in a folder's name cannot be
    # read as a pattern, which would match no file and insert nothing.
    with tempfile.TemporaryFile(dir=path) as spool:
        for chunk in data:
            spool.write(chunk)
        spool.flush()
        if spool.tell() <= LITTLE_BYTES:
            _stay_on_one_thread(session, run)
        spool.seek(0)  # on macOS opening /dev/fd/N shares the position
        sql = _reading_from(f"/dev/fd/{spool.fileno()}", insert, run.encoding or "none")
        return cast("int", session.query(sql).rows_written())


def _reading_from(file: str, insert: statements.Insert, compression: str) -> str:
    if not insert.input:
        return insert.from_file(file, compression)
    # chdb accepts `SELECT ... FROM input()` with data but inserts nothing, without an error.
    wanted = statements.quoted(insert.format)
    return insert.reading(f"file('{file}', {wanted}, {insert.structure}, '{compression}')")


def _stay_on_one_thread(session: Any, run: Run) -> None:
    chosen = [f"{name} = {value}" for name, value in ONE_THREAD.items() if name not in run.settings]
    if chosen:
        session.query(f"SET {', '.join(chosen)}")


def _chunks(pipe: BinaryIO) -> Iterator[bytes]:
    """Yield the data up to its End; EOFError if the connection closes before."""
    while isinstance(frame := read(pipe), Chunk):
        yield frame.data


def _slices(content: bytes) -> Iterator[bytes]:
    return (content[at : at + CHUNK_BYTES] for at in range(0, len(content), CHUNK_BYTES))


def _failed(error: Exception) -> StatementFailed:
    found = from_exception(error)
    return StatementFailed(found.code, _SPOOL.sub("", found.message))


if __name__ == "__main__":
    main()
    os._exit(0)  # chdb's threads would keep the interpreter from exiting
