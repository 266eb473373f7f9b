"""``chdb:PATH``: driver of the embedded engine, whose process starts at the first statement."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qsl

import anyio
import msgspec
import structlog

from edgesim import foreign
from edgesim.clickhouse import statements
from edgesim.clickhouse.chdb.limits import StatementLimits
from edgesim.clickhouse.chdb.wire import (
    CHUNK_BYTES,
    GONE,
    SCRATCH,
    Chunk,
    End,
    EngineChannel,
    Frame,
    Run,
    Started,
    StatementFailed,
)
from edgesim.clickhouse.driver import ClickHouseDriver, QueryResult, Statement
from edgesim.errors import ClickHouseError, ConfigError, RunError
from edgesim.model import iterate
from edgesim.urls import path_of

DETERMINISTIC = True  # in virtual time its I/O is synchronous: the event loop waits for it
EMBEDDED = True
SHARED = False
DURABLE = True
FILES = ("",)
LIBRARY = (
    "chdb",
    "the embedded ClickHouse engine is not installed",
    "pip install --no-deps 'chdb-core>=26.5', or name a server with --clickhouse URL",
)
CLOSE_SECONDS = 20.0
log = structlog.get_logger()
_ENDED = "the embedded ClickHouse engine ended during a statement; the next statement restarts it"


class _EndedError(RunError):
    """Raised if the engine exits during a statement."""

    def __init__(self) -> None:
        super().__init__(_ENDED)


class ChdbClickHouse:
    """Driver with one chdb process, which is restarted if it has exited."""

    def __init__(self, path: Path, limits: StatementLimits | None = None) -> None:
        self._path = path
        self._limits = limits or StatementLimits()
        self._process: foreign.Process | None = None
        self._control: foreign.Stream | None = None
        self._starting = anyio.Lock()

    async def execute(self, statement: Statement) -> QueryResult:
        """Run a statement; if the engine exits during a read-only one, retry it on a new engine."""
        process = self._process
        try:
            return await self._ask(statement)
        except _EndedError:
            if not statements.reads_only(statement.sql) or statement.data != b"":
                raise
            # An exiting process closes its sockets one by one: a retry could still connect to a
            # control socket that will never be served.
            if process is not None:
                with anyio.move_on_after(CLOSE_SECONDS):
                    await process.wait()
            return await self._ask(statement)

    async def _ask(self, statement: Statement) -> QueryResult:
        """Run a statement over its own socket, which gives backpressure in both directions."""
        channel = await self._open_channel()
        try:
            await _send(channel, statement)
            started = await _receive(channel)
            rows = _ChdbRows(channel, await _receive(channel))
        except BaseException:
            await channel.aclose()
            raise
        assert isinstance(started, Started)
        if rows.empty:
            await rows.aclose()
        return QueryResult(rows, started.format, started.written_rows)

    async def _open_channel(self) -> EngineChannel:
        async with self._starting:
            if self._control is None:
                await self._start()
            try:
                return await self._connect()
            except GONE:
                # It exited after the last statement and has not received this one.
                status = self._process.returncode if self._process else None
                log.error("embedded ClickHouse engine exited, restarting it", exit_status=status)
                await self.close()
                await self._start()
            try:
                return await self._connect()
            except GONE as error:
                raise RunError("the embedded ClickHouse engine exited during its start") from error

    async def _connect(self) -> EngineChannel:
        assert self._control is not None
        ours, theirs = socket.socketpair()
        with theirs:
            stream = await foreign.stream(ours)
            try:
                await self._control.send_fds(b"s", [theirs.fileno()])
            except BaseException:
                await stream.aclose()
                raise
        return EngineChannel(stream)

    async def _start(self) -> None:
        module, missing, cure = LIBRARY
        if importlib.util.find_spec(module) is None:
            raise RunError(missing, cure)
        ours, theirs = socket.socketpair()
        self._control = await foreign.stream(ours)
        try:
            with theirs, foreign.logged_stderr("clickhouse engine") as stderr:
                self._process = await foreign.start(
                    [
                        *(sys.executable, "-P", "-m", "edgesim.clickhouse.chdb.process"),
                        *(str(theirs.fileno()), str(self._path)),
                        # Virtual time has no power cuts.
                        "unsynced" if foreign.stops_the_world() else "synced",
                        msgspec.json.encode(self._limits).decode(),
                    ],
                    # A minimal environment, because SQL can read it.
                    env={"TMPDIR": str(self._path / SCRATCH), "LANG": "C.UTF-8"},
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    pass_fds=[theirs.fileno()],
                )
            ready = await EngineChannel(self._control).receive()
        except GONE as error:
            await self.close()
            raise RunError("the embedded ClickHouse engine did not start") from error
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.close()
            raise
        if isinstance(ready, StatementFailed):
            await self.close()
            raise RunError(f"the embedded ClickHouse engine did not start: {ready.message}")

    async def close(self) -> None:
        """Stop the engine, killing it after CLOSE_SECONDS; a later statement starts a new one."""
        control, self._control = self._control, None
        process, self._process = self._process, None
        await foreign.end(process, control, CLOSE_SECONDS)


class _ChdbRows:
    """Streamed rows of a response; ``first`` is already read, so that an early error was raised.

    Not a generator: ``aclose`` on a generator that has not started runs none of its code.
    """

    def __init__(self, channel: EngineChannel, first: Frame) -> None:
        self._channel = channel
        self._next: Frame | None = first
        self._ended = False
        self.empty = isinstance(first, End)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        try:
            frame, self._next = self._next or await _receive(self._channel), None
        except BaseException:
            await self.aclose()
            raise
        if isinstance(frame, Chunk):
            return frame.data
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Discard the rest and cancel the statement."""
        self._ended = True
        await self._channel.aclose()


async def _send(channel: EngineChannel, statement: Statement) -> None:
    run = Run(
        statement.sql,
        statement.default_format,
        statement.encoding,
        statement.database,
        dict(statement.settings),
    )
    await _to(channel, run)
    async for chunk in iterate(statement.data):
        for at in range(0, len(chunk), CHUNK_BYTES):
            await _to(channel, Chunk(chunk[at : at + CHUNK_BYTES]))
    await _to(channel, End())


async def _to(channel: EngineChannel, frame: Frame) -> None:
    try:
        await channel.send(frame)
    except GONE as error:
        raise _EndedError from error


async def _receive(channel: EngineChannel) -> Frame:
    try:
        frame = await channel.receive()
    except GONE as error:
        raise _EndedError from error
    if isinstance(frame, StatementFailed):
        raise ClickHouseError(frame.code, frame.message)
    return frame


@asynccontextmanager
async def open_clickhouse(url: str) -> AsyncIterator[ChdbClickHouse]:
    """Open the engine at ``chdb:PATH?options``.

    The options are fields of StatementLimits; ConfigError for others.
    """
    path, _, options = path_of(url).partition("?")
    try:
        limits = msgspec.convert(
            dict(parse_qsl(options, keep_blank_values=True)), StatementLimits, strict=False
        )
    except msgspec.ValidationError as error:
        raise ConfigError("backends", "clickhouse", f"{url}: {error}") from None
    database = ChdbClickHouse(Path(path), limits)
    try:
        yield database
    finally:
        with anyio.CancelScope(shield=True):
            await database.close()


_: type[ClickHouseDriver] = ChdbClickHouse
