"""``file:PATH``: objects as files under one directory, durable against power loss.

PATH/index.db   the metadata of each object, and the notifications not delivered yet
PATH/blobs/     one file per version of an object: its bytes, then a label (see labels)
PATH/unknown/   blobs without a label, moved there when a damaged index is rebuilt
PATH/lock       locked by the one process that uses the store
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from io import FileIO
from pathlib import Path

import anyio.lowlevel
import structlog

from edgesim import durable
from edgesim.clock import Clock
from edgesim.database import Database, is_damage
from edgesim.errors import ConfigError, RunError, UsageError
from edgesim.r2.local.blobs import Blobs
from edgesim.r2.local.indexed import IndexedR2
from edgesim.r2.local.rebuild import rebuild
from edgesim.r2.local.schema import SCHEMA, prepare
from edgesim.urls import path_of
from edgesim.writer_thread import WriterThread

DETERMINISTIC = True
EMBEDDED = True
SHARED = False
DURABLE = True
FILES = ("", "blobs", "index.db", "index.db-wal")
BLOBS = "blobs"

_MAGIC = b"EDGBLOB1"
_FOOTER = struct.Struct(">II8s")  # length and CRC-32 of the label before it
_CHUNK_BYTES = 256 * 1024
# Flushing a huge object in one go would block all others for seconds.
_FLUSH_BYTES = 8 * 1024 * 1024

_log = structlog.get_logger("edgesim.r2")


class FileBlobs:
    """Blobs as files of one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._thread = WriterThread("r2 blobs")

    def close(self) -> None:
        """Stop the thread."""
        self._thread.close()

    async def write(
        self, name: str, body: AsyncIterator[bytes], label: Callable[[], bytes]
    ) -> None:
        path = self._directory / name
        with _explained(path):
            file = FileIO(path, "x")
        try:
            with file:
                await self._fill(file, path, body)
                text = label()
                footer = _FOOTER.pack(len(text), zlib.crc32(text), _MAGIC)
                await self._thread.run(partial(_write, file, path, text + footer, flush=True))
        except BaseException:
            self.drop(name)
            raise
        await self._thread.run(partial(_flush_folder, self._directory, path))

    async def _fill(self, file: FileIO, path: Path, body: AsyncIterator[bytes]) -> None:
        unflushed = 0
        async for chunk in body:
            unflushed += len(chunk)
            flush = unflushed >= _FLUSH_BYTES
            await self._thread.run(partial(_write, file, path, chunk, flush=flush))
            if flush:
                unflushed = 0

    def read(self, name: str, offset: int, length: int) -> AsyncIterator[bytes]:
        return _Reader(self._directory / name, offset, length)

    def drop(self, name: str) -> None:
        path = self._directory / name
        try:
            durable.remove(path)
        except OSError:
            # The index does not reference the blob any more, and the next start removes it.
            _log.exception("r2 blob not removed", path=str(path))

    def names(self) -> Iterator[str]:
        with _explained(self._directory), os.scandir(self._directory) as found:
            for entry in found:
                if entry.is_file(follow_symlinks=False):
                    yield entry.name

    def keep(self, name: str) -> None:
        unknown = self._directory.parent / "unknown"
        with _explained(unknown):
            durable.make_folder(unknown)
            durable.rename(self._directory / name, unknown / name)

    def label(self, name: str) -> bytes | None:
        path = self._directory / name
        with _explained(path), FileIO(path) as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - _FOOTER.size))
            footer = file.read(_FOOTER.size)
            if len(footer) < _FOOTER.size or not footer.endswith(_MAGIC):
                return None
            length, checksum, _ = _FOOTER.unpack(footer)
            file.seek(max(0, end - _FOOTER.size - length))
            text = file.read(length)
            return text if zlib.crc32(text) == checksum else None


class _Reader:
    """The chunks of an open blob; closes it after the last one or on ``aclose``."""

    def __init__(self, path: Path, offset: int, length: int) -> None:
        self._path = path
        self._left = length
        self._started = False
        try:
            with _explained(path):
                self._file = FileIO(path)
                self._file.seek(offset)
        except RunError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                _log.error("r2 object damaged", blob=path.name, problem="the blob is gone")
            raise

    def __aiter__(self) -> _Reader:
        return self

    async def __anext__(self) -> bytes:
        if self._left == 0 or self._file.closed:
            await self.aclose()
            raise StopAsyncIteration
        if self._started:
            await anyio.lowlevel.checkpoint()  # yield between the chunks of a large object
        self._started = True
        try:
            chunk = self._read()
        except RunError:
            await self.aclose()
            raise
        self._left -= len(chunk)
        return chunk

    def _read(self) -> bytes:
        with _explained(self._path):
            chunk = self._file.read(min(_CHUNK_BYTES, self._left))
        if not chunk:
            _log.error("r2 object damaged", blob=self._path.name, problem="the blob is cut short")
            raise RunError(f"r2 store {self._path}: cut short, {self._left} bytes are missing")
        return chunk

    async def aclose(self) -> None:
        self._file.close()


def _write(file: FileIO, path: Path, data: bytes, *, flush: bool) -> None:
    with _explained(path):
        durable.write(file, data)
        if flush:
            durable.flush(file.fileno(), path)


def _flush_folder(directory: Path, path: Path) -> None:
    with _explained(path):
        durable.flush_folder(directory)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"r2 store {path}: {error.strerror}") from error


@contextmanager
def _owned(root: Path) -> Iterator[None]:
    """Lock the store: another process would remove this one's unfinished blobs as orphans."""
    with _explained(root / "lock"):
        file = FileIO(root / "lock", "a")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{root} is in use by another edgesim process; stop that one first"
            ) from None
        yield


@asynccontextmanager
async def open_r2(url: str, clock: Clock, state: Path) -> AsyncIterator[IndexedR2]:
    """The store under the path in ``url``, created if missing; ``state`` is not used.

    Raises ConfigError without a path, UsageError if another process uses the store, RunError if the
    file system refuses an operation.
    """
    if not path_of(url):
        raise ConfigError("backends", "r2", f"{url!r} names no directory; write file:PATH")
    root = Path(path_of(url))
    with _explained(root):
        durable.make_folder(root / "blobs")
    with _owned(root), closing(FileBlobs(root / "blobs")) as blobs:
        database = await _index(root / "index.db", blobs, clock)
        with closing(database):
            yield IndexedR2(database, blobs, clock)


async def _index(path: Path, blobs: FileBlobs, clock: Clock) -> Database:
    """Open the index; rebuild one that is damaged or missing, if the blobs have labels."""
    if not _has_content(path) and _has_labels(blobs):
        _set_aside(path, "the file is gone or empty")
        await rebuild(path, blobs, clock)
    try:
        return await _checked(path, blobs, clock)
    except RunError as error:
        if not is_damage(error.__cause__):
            raise
        if not _has_labels(blobs):
            raise RunError(error.problem, "restore the file, or move it away") from error
        _set_aside(path, str(error.__cause__))
    await rebuild(path, blobs, clock)
    return await _checked(path, blobs, clock)


async def _checked(path: Path, blobs: FileBlobs, clock: Clock) -> Database:
    database = Database(path, SCHEMA, "restart edgesim, which rebuilds it from the blobs")
    try:
        prepare(database)
        await IndexedR2(database, blobs, clock).remove_orphans()
    except BaseException:
        database.close()
        raise
    return database


def _has_content(path: Path) -> bool:
    with _explained(path):
        return path.exists() and path.stat().st_size > 0


def _has_labels(blobs: FileBlobs) -> bool:
    return any(blobs.label(name) is not None for name in blobs.names())


def _set_aside(path: Path, problem: str) -> None:
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    _log.error("r2 index damaged, set aside", file=str(path), saved=aside.name, error=problem)
    with _explained(path):
        for suffix in ("-wal", "-shm", ""):  # SQLite would apply a remaining WAL to the new file
            file = path.with_name(path.name + suffix)
            if file.exists():
                durable.rename(file, aside.with_name(aside.name + suffix))


_: type[Blobs] = FileBlobs
