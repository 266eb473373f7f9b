"""The process that chdb lives in: ``python -m edgesim.clickhouse.chdb_process FD PATH``.

Of its own, because the engine is 330 MB, handles signals, holds a lock on its directory and hangs a
fork that has it imported.  Each statement comes as one end of a socket over the control socket FD:
a length and a Request, then the data to its end; back go a length and a Reply, then the answer.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from edgesim.clickhouse import statements

THREADS = 4
CHUNK_BYTES = 1 << 18
LOCK_SECONDS = 15.0
UNKNOWN_EXCEPTION = 1002
_PR_SET_PDEATHSIG = 1
_CODE = re.compile(r"Code: (\d+)\.")


class Request(msgspec.Struct):
    """A statement; ``has_data`` says that an INSERT's data follows."""

    sql: str
    default_format: str
    settings: dict[str, str]
    has_data: bool
    encoding: str | None


class Reply(msgspec.Struct):
    """The outcome; the answer's bytes follow unless ``code`` is set."""

    format: str = ""
    written_rows: int | None = None
    code: int | None = None
    message: str = ""


def main() -> None:
    """Serve until the platform is gone."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us too; the platform decides
    control = socket.socket(fileno=int(sys.argv[1]))
    path = Path(sys.argv[2])
    engine = _Engine(path)
    slots = threading.Semaphore(THREADS)
    threads: list[threading.Thread] = []
    while True:
        _, fds, _, _ = socket.recv_fds(control, 1, 1)
        if not fds:
            break
        slots.acquire()
        thread = threading.Thread(target=_serve, args=(engine, fds[0], slots))
        thread.start()
        threads = [each for each in threads if each.is_alive()] + [thread]
    for thread in threads:
        thread.join()
    engine.close()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _serve(engine: _Engine, fd: int, slots: threading.Semaphore) -> None:
    try:
        with socket.socket(fileno=fd) as channel, channel.makefile("rb") as reader:
            length = int.from_bytes(reader.read(4), "big")
            request = msgspec.msgpack.decode(reader.read(length), type=Request)
            reply, answer = _run(engine, request, reader)
            while reader.read(CHUNK_BYTES):
                pass  # what an early error left unread, so that the sender is not cut off
            head = msgspec.msgpack.encode(reply)
            channel.sendall(len(head).to_bytes(4, "big") + head)
            channel.sendall(answer)
    except (BrokenPipeError, ConnectionResetError):
        return  # whoever asked has gone away
    finally:
        slots.release()


def _run(engine: _Engine, request: Request, reader: Any) -> tuple[Reply, Any]:
    try:
        if request.has_data:
            return engine.insert(request, reader), b""
        return engine.query(request)
    except Exception as error:  # noqa: BLE001 (chdb raises RuntimeError and errors of its own alike)
        text = str(error)
        code = getattr(error, "code", None)
        found = _CODE.search(text)
        if not isinstance(code, int):
            code = int(found[1]) if found else UNKNOWN_EXCEPTION
        return Reply(code=code, message=text[found.start() :] if found else text), b""


class _Engine:
    """One chdb session."""

    def __init__(self, path: Path) -> None:
        from chdb import session

        self._session: Any

        path.mkdir(parents=True, exist_ok=True)
        self._spool = path.with_name(f"{path.name}.spool")
        self._spool.mkdir(exist_ok=True)
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                self._session = session.Session(str(path))  # type: ignore[no-untyped-call]
                self._session.query("SELECT 1")
            except Exception:
                # A predecessor that was killed may still be on its way out.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                break
        for left in self._spool.iterdir():  # a predecessor was killed in the middle of an insert
            left.unlink()

    def query(self, request: Request) -> tuple[Reply, Any]:
        """Run a statement without data."""
        sql, own_format = statements.cut_format(request.sql)
        wanted = own_format or request.default_format
        sql = statements.with_settings(sql, request.settings)
        result = self._session.query(sql, wanted)
        return Reply(wanted), result.bytes() if result is not None else b""

    def insert(self, request: Request, reader: Any) -> Reply:
        """Run an INSERT with the data that ``reader`` gives."""
        insert = statements.as_insert(request.sql)
        if insert is None:
            raise ValueError("an INSERT with data needs a FORMAT")
        if statements.replace_input(insert.head, "") is not None:
            return self._insert_select(request, insert, reader)
        head = statements.with_settings(insert.head, request.settings)
        with self._session.send_insert(head, insert.format) as inserter:
            for chunk in _decoded(reader, request.encoding):
                inserter.append(chunk)
            result = inserter.finish()
        return Reply(insert.format, written_rows=result.rows_written)

    def _insert_select(self, request: Request, insert: statements.Insert, reader: Any) -> Reply:
        # chdb takes `SELECT ... FROM input()` with data and inserts nothing, without an error.
        # From a file it works, and the engine unpacks gzip faster than Python could.
        with tempfile.NamedTemporaryFile(dir=self._spool, prefix="insert-") as spool:
            while chunk := reader.read(CHUNK_BYTES):
                spool.write(chunk)
            spool.flush()
            compression = "gzip" if request.encoding == "gzip" else "none"
            source = (
                f"file({statements.quoted(spool.name)}, {statements.quoted(insert.format)}, "
                f"{{structure}}, '{compression}')"
            )
            sql = statements.replace_input(insert.head, source) or ""
            result = self._session.query(statements.with_settings(sql, request.settings))
            return Reply(insert.format, written_rows=result.rows_written())

    def close(self) -> None:
        self._session.close()


def _decoded(reader: Any, encoding: str | None) -> Iterator[bytes]:
    """The data in chunks, unpacked; gzip may have several members."""
    if encoding != "gzip":
        while chunk := reader.read(CHUNK_BYTES):
            yield chunk
        return
    unpack = zlib.decompressobj(31)
    while chunk := reader.read(CHUNK_BYTES):
        while chunk:
            if data := unpack.decompress(chunk):
                yield data
            chunk = unpack.unused_data
            if unpack.eof:
                unpack = zlib.decompressobj(31)
    if data := unpack.flush():
        yield data


if __name__ == "__main__":
    main()
    os._exit(0)  # chdb's own threads would keep the interpreter from ending
