"""``file:PATH``: objects as files under one directory, durable against power loss.

PATH/index.db   what is known of each object, and the notifications not delivered yet
PATH/blobs/     the bytes, one file per version of an object
PATH/lock       held by the one process that uses the store
"""

from __future__ import annotations

import fcntl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from io import FileIO
from pathlib import Path

import anyio.lowlevel
import structlog

from edgesim import durable
from edgesim.clock import Clock
from edgesim.errors import ConfigError, RunError, UsageError
from edgesim.r2.blobs import Blobs
from edgesim.r2.database import Database
from edgesim.r2.indexed import SCHEMA, IndexedR2
from edgesim.urls import path_of

DETERMINISTIC = True

_CHUNK_BYTES = 256 * 1024
# One flush at the end of a huge object would hold up the event loop for seconds.
_FLUSH_BYTES = 8 * 1024 * 1024

_log = structlog.get_logger("edgesim.r2")


class FileBlobs:
    """Blobs as files of one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def write(self, name: str, body: AsyncIterator[bytes]) -> None:
        path = self._directory / name
        with _explained(path):
            file = FileIO(path, "x")
        try:
            with file:
                await _fill(file, path, body)
        except BaseException:
            self.drop(name)
            raise
        with _explained(path):
            durable.flush_folder(self._directory)

    def read(self, name: str, offset: int, length: int) -> AsyncIterator[bytes]:
        return _Reader(self._directory / name, offset, length)

    def drop(self, name: str) -> None:
        path = self._directory / name
        try:
            durable.remove(path)
        except OSError:
            # Nothing names the blob any more, and the next start tries again.
            _log.exception("a blob could not be removed", path=str(path))

    def names(self) -> Sequence[str]:
        with _explained(self._directory):
            return sorted(path.name for path in self._directory.iterdir())


class _Reader:
    """The chunks of an open blob; closes it after the last one or on ``aclose``."""

    def __init__(self, path: Path, offset: int, length: int) -> None:
        self._path = path
        self._left = length
        self._started = False
        with _explained(path):
            self._file = FileIO(path)
            self._file.seek(offset)

    def __aiter__(self) -> _Reader:
        return self

    async def __anext__(self) -> bytes:
        if self._left == 0 or self._file.closed:
            await self.aclose()
            raise StopAsyncIteration
        if self._started:
            await anyio.lowlevel.checkpoint()  # others run between the chunks of a large object
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
            raise RunError(f"r2 store {self._path}: cut short, {self._left} bytes are missing")
        return chunk

    async def aclose(self) -> None:
        self._file.close()


async def _fill(file: FileIO, path: Path, body: AsyncIterator[bytes]) -> None:
    unflushed = 0
    async for chunk in body:
        with _explained(path):
            durable.write(file, chunk)
            unflushed += len(chunk)
            if unflushed >= _FLUSH_BYTES:
                durable.flush(file.fileno())
                unflushed = 0
    with _explained(path):
        durable.flush(file.fileno())


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"r2 store {path}: {error.strerror}") from error


@contextmanager
def _owned(root: Path) -> Iterator[None]:
    """Keep other processes out: they would tidy away what this one is writing."""
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
    """The store under the path in ``url``, created if need be; ``state`` is not used.

    Raises ConfigError without a path, UsageError while another process has the store, RunError
    where the disk does not let us.
    """
    if not path_of(url):
        raise ConfigError("backends", "r2", f"{url!r} names no directory; write file:PATH")
    root = Path(path_of(url))
    blobs = root / "blobs"
    with _explained(root):
        durable.make_folder(blobs)
    with _owned(root), closing(Database(root / "index.db", SCHEMA)) as database:
        store = IndexedR2(database, FileBlobs(blobs), clock)
        store.remove_orphans()
        yield store


_: type[Blobs] = FileBlobs
