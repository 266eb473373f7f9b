"""The process that chdb lives in: ``python -m edgesim.clickhouse.chdb_process FD PATH``.

Of its own, because the engine is 330 MB, handles signals, holds a lock on its directory and hangs a
fork that has it imported.  Each statement comes as one end of a socket over the control socket FD;
``wire`` says what goes over it.

Each statement has a session of its own (under 1 ms): one session runs one statement at a time,
refuses all others while a streaming insert is open, and keeps SET and USE for whoever comes next.
Settings go in by SET, which needs no cutting of the statement.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
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
from typing import Any, BinaryIO, cast

from edgesim.clickhouse import statements
from edgesim.clickhouse.compression import Gunzip
from edgesim.clickhouse.exceptions import from_text
from edgesim.clickhouse.wire import (
    CHUNK_BYTES,
    SCRATCH,
    Chunk,
    End,
    Failed,
    Frame,
    Run,
    Started,
    encode,
    read,
)
from edgesim.errors import ClickHouseError, RunError
from edgesim.jail import landlock

THREADS = 8
LOCK_SECONDS = 5.0
LOCK_RETRY_SECONDS = 0.05
STREAMED = {"JSONEachRow", "TabSeparated", "TSV", "CSV"}
"""Formats whose pieces put together are the whole; chdb repeats the head and foot of others."""
ONE_BLOCK = {"min_insert_block_size_rows": "0", "min_insert_block_size_bytes": str(1 << 30)}
"""An insert is all or nothing within a block: one block, as long as it is under 1 GiB in memory.

With the engine's own 1,048,449 rows, 6 million rows with a bad last one left 3 million behind.
"""
LITTLE_BYTES = 1 << 16
ONE_THREAD = {"max_threads": "1", "input_format_parallel_parsing": "0"}
"""For little data: to wake other threads takes longer than to read it, twice on a busy machine."""
_SYSTEM = [
    *(f"{sys.base_prefix}/lib", "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib"),
    *("/etc/ld.so.cache", "/etc/localtime", "/etc/timezone", "/usr/share/zoneinfo"),
    *("/dev/urandom", "/dev/random", "/dev/zero", "/sys/devices/system/cpu", "/sys/fs/cgroup"),
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/loadavg", "/proc/sys/kernel"),
]
"""What the engine reads of the system; not /proc as a whole, where others' environments are."""
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve until the platform is gone."""
    _leave_the_end_to_the_platform()
    control = socket.socket(fileno=int(sys.argv[1]))
    path = Path(sys.argv[2])
    try:
        path.mkdir(parents=True, exist_ok=True)
        _shut_the_rest_out(path)
        keeper = _open(path)
    except Exception as error:  # noqa: BLE001 (whatever it is, the platform must say it)
        control.sendall(encode(_failed(error)))
        return
    control.sendall(encode(End()))
    with ThreadPoolExecutor(THREADS) as pool:
        while fds := socket.recv_fds(control, 1, 1)[1]:
            pool.submit(_serve, path, socket.socket(fileno=fds[0]))
    keeper.close()


def _leave_the_end_to_the_platform() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # for a whole service or group
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _shut_the_rest_out(path: Path) -> None:
    """Leave SQL this database, and nothing else of the machine: ``file()`` reads any path.

    Before chdb is imported, because the kernel restricts a thread and its children, not others.
    """
    scratch = path / SCRATCH
    for left in scratch.glob("clickhouse-embedded-*"):  # of an engine that was killed
        shutil.rmtree(left)
    scratch.mkdir(exist_ok=True)
    library = [each for each in sys.path if "site-packages" in each] + _SYSTEM
    landlock.restrict([*library, f"/proc/{os.getpid()}"], write=[str(path), "/dev/null"])


def _open(path: Path) -> Any:
    """The session that keeps the database open between statements."""
    _wait_for_lock(path)
    return _session(path)


def _session(path: Path) -> Any:
    from chdb.session import Session

    return Session(str(path))  # type: ignore[no-untyped-call]


def _wait_for_lock(path: Path) -> None:
    """A predecessor that was killed may still be on its way out, with its lock on ``status``."""
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


def _serve(path: Path, channel: socket.socket) -> None:
    with channel, channel.makefile("rb") as reader, channel.makefile("wb") as writer:
        pipe = cast("BinaryIO", reader)
        try:
            run = cast("Run", read(pipe))
            data = _chunks(pipe)
            for frame in _answer(path, run, data):
                writer.write(encode(frame))
            writer.flush()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return  # whoever asked has gone away, and an insert of theirs was given up
        except OSError:
            traceback.print_exc()  # the platform hears of a lost statement, the log of the cause


def _answer(path: Path, run: Run, data: Iterator[bytes]) -> Iterator[Frame]:
    try:
        with _own_session(path, run) as session:
            yield from _execute(path, session, run, data)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:  # noqa: BLE001 (chdb raises RuntimeError and errors of its own alike)
        for _ in data:
            pass  # what an early error left unread: the sender sends first and reads then
        yield _failed(error)


@contextmanager
def _own_session(path: Path, run: Run) -> Iterator[Any]:
    session = _session(path)
    try:
        if run.database:
            session.query(f"USE {statements.named(run.database)}")
        settings = {
            name: statements.setting(name, value)
            for name, value in (ONE_BLOCK | run.settings).items()
        }
        # Last, because a read-only session takes no more settings.
        readonly = settings.pop("readonly", None)
        session.query(f"SET {', '.join(settings.values())}")  # one by one they cost 0.5 ms each
        if readonly is not None:
            session.query(f"SET {readonly}")
        yield session
    finally:
        session.close()


def _execute(path: Path, session: Any, run: Run, data: Iterator[bytes]) -> Iterator[Frame]:
    insert = statements.as_insert(run.sql)
    if insert is not None:
        write = _insert_select if insert.input else _insert
        yield Started(run.default_format, write(path, session, run, insert, data))
    else:
        for _ in data:
            pass  # the End: to hang up before the sender has sent it breaks its pipe
        yield from _query(session, run)
    yield End()


def _query(session: Any, run: Run) -> Iterator[Frame]:
    wanted = statements.trailing_format(run.sql) or run.default_format
    what = statements.kind(run.sql)
    if what == "SELECT" and wanted in STREAMED:
        rows = session.send_query(run.sql, wanted)
        yield Started(wanted, None)
        for piece in rows:
            yield from map(Chunk, _slices(piece.bytes()))
        return
    result = session.query(run.sql, wanted)
    yield Started(wanted, result.rows_written() if what == "INSERT" else None)
    yield from map(Chunk, _slices(result.bytes()))


def _insert(
    path: Path, session: Any, run: Run, insert: statements.Insert, data: Iterator[bytes]
) -> int:
    # chdb appends FORMAT to the head: the new line keeps it out of a comment at the end.
    with session.send_insert(f"{insert.head}\n", insert.format) as inserter:
        for chunk in _unpacked(data) if run.encoding == "gzip" else data:
            inserter.append(chunk)
        return cast("int", inserter.finish().rows_written)


def _insert_select(
    path: Path, session: Any, run: Run, insert: statements.Insert, data: Iterator[bytes]
) -> int:
    # chdb takes `SELECT ... FROM input()` with data and inserts nothing, without an error.
    # From a file it works, and the engine unpacks gzip faster than Python could.  The file has no
    # name: nothing is left after a kill, and no * or {} in a folder's name is read as a pattern,
    # which would match nothing and insert nothing.
    with tempfile.TemporaryFile(dir=path) as spool:
        for chunk in data:
            spool.write(chunk)
        spool.flush()
        if spool.tell() <= LITTLE_BYTES:
            _stay_on_one_thread(session, run)
        source = (
            f"file('/dev/fd/{spool.fileno()}', {statements.quoted(insert.format)}, "
            f"{insert.structure}, '{run.encoding or 'none'}')"
        )
        return cast("int", session.query(insert.reading(source)).rows_written())


def _stay_on_one_thread(session: Any, run: Run) -> None:
    chosen = [f"{name} = {value}" for name, value in ONE_THREAD.items() if name not in run.settings]
    if chosen:
        session.query(f"SET {', '.join(chosen)}")


def _chunks(pipe: BinaryIO) -> Iterator[bytes]:
    """The data up to its End; EOFError if it breaks off before."""
    while isinstance(frame := read(pipe), Chunk):
        yield frame.data


def _unpacked(data: Iterator[bytes]) -> Iterator[bytes]:
    member = Gunzip()
    for chunk in data:
        yield from member.pieces(chunk)
    member.finish()


def _slices(content: bytes) -> Iterator[bytes]:
    return (content[at : at + CHUNK_BYTES] for at in range(0, len(content), CHUNK_BYTES))


def _failed(error: Exception) -> Failed:
    if not isinstance(error, ClickHouseError):
        error = from_text(str(error))
    return Failed(error.code, error.message)


if __name__ == "__main__":
    main()
    os._exit(0)  # chdb's own threads would keep the interpreter from ending
