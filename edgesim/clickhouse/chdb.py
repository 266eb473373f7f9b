"""``chdb:PATH``: the embedded engine, behind a process that is started at the first statement."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import msgspec
from anyio.abc import Process, UNIXSocketStream

from edgesim.clickhouse import statements
from edgesim.clickhouse.chdb_process import CHUNK_BYTES, Reply, Request
from edgesim.clickhouse.driver import Answer, ClickHouseDriver, Statement
from edgesim.errors import ClickHouseError, RunError, UsageError
from edgesim.model import iterate
from edgesim.urls import path_of

DETERMINISTIC = False
CLOSE_SECONDS = 20.0
NOT_IMPLEMENTED = 48
_GONE = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)


class ChdbClickHouse:
    """One chdb process; a new one is started when it is found dead."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process: Process | None = None
        self._control: UNIXSocketStream | None = None
        self._starting = anyio.Lock()

    async def execute(self, statement: Statement) -> Answer:
        """One socket for each statement: no framing of the data, and the engine sets the pace."""
        if statement.database not in {None, "", "default"}:
            raise ClickHouseError(
                NOT_IMPLEMENTED, f"the embedded engine has no database {statement.database!r}"
            )
        channel = await self._open_channel()
        try:
            await self._send(channel, statement)
            reply, rest = await _receive_reply(channel)
        except _GONE as error:
            await channel.aclose()
            raise RunError(
                "the embedded ClickHouse engine ended during a statement; "
                "the next one starts it anew"
            ) from error
        except BaseException:
            await channel.aclose()
            raise
        if reply.code is not None:
            await channel.aclose()
            raise ClickHouseError(reply.code, reply.message)
        return Answer(_rest(channel, rest), reply.format, reply.written_rows)

    async def _send(self, channel: UNIXSocketStream, statement: Statement) -> None:
        head = msgspec.msgpack.encode(
            Request(
                statement.sql,
                statement.default_format,
                dict(statement.settings),
                statements.as_insert(statement.sql) is not None,
                statement.encoding,
            )
        )
        await channel.send(len(head).to_bytes(4, "big") + head)
        async for chunk in iterate(statement.data):
            await channel.send(chunk)
        await channel.send_eof()

    async def _open_channel(self) -> UNIXSocketStream:
        for attempt in (1, 2):
            async with self._starting:
                if self._process is None or self._process.returncode is not None:
                    await self._start()
                ours, theirs = socket.socketpair()
                with theirs:
                    channel = await UNIXSocketStream.from_socket(ours)
                    try:
                        assert self._control is not None
                        await self._control.send_fds(b"s", [theirs.fileno()])
                    except _GONE as error:
                        await channel.aclose()
                        self._process = None
                        if attempt == 2:
                            raise RunError(
                                "the embedded ClickHouse engine does not start"
                            ) from error
                    else:
                        return channel
        raise RunError("the embedded ClickHouse engine does not start")

    async def _start(self) -> None:
        if importlib.util.find_spec("chdb") is None:
            raise UsageError(
                "the embedded ClickHouse engine is not installed: pip install 'edgesim[chdb]', "
                "or name a server with --clickhouse URL"
            )
        if self._control is not None:
            await self._control.aclose()
        ours, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            self._process = await anyio.open_process(
                [
                    *(sys.executable, "-P", "-m", "edgesim.clickhouse.chdb_process"),
                    *(str(fd), str(self._path)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=None,
                pass_fds=[fd],
            )
        self._control = await UNIXSocketStream.from_socket(ours)

    async def close(self) -> None:
        """Let the engine finish and end."""
        if self._control is not None:
            await self._control.aclose()
        if self._process is not None:
            with anyio.move_on_after(CLOSE_SECONDS):
                await self._process.wait()
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.aclose()


async def _receive_reply(channel: UNIXSocketStream) -> tuple[Reply, bytes]:
    buffer = b""
    while len(buffer) < 4 or len(buffer) < 4 + int.from_bytes(buffer[:4], "big"):
        buffer += await channel.receive(CHUNK_BYTES)
    end = 4 + int.from_bytes(buffer[:4], "big")
    return msgspec.msgpack.decode(buffer[4:end], type=Reply), buffer[end:]


async def _rest(channel: UNIXSocketStream, first: bytes) -> AsyncIterator[bytes]:
    try:
        if first:
            yield first
        with suppress(anyio.EndOfStream):
            while True:
                yield await channel.receive(CHUNK_BYTES)
    finally:
        with anyio.CancelScope(shield=True):
            await channel.aclose()


@asynccontextmanager
async def open_clickhouse(
    url: str, user: str | None, password: str | None
) -> AsyncIterator[ChdbClickHouse]:
    """The engine at ``chdb:PATH``; it has no users."""
    database = ChdbClickHouse(Path(path_of(url)))
    try:
        yield database
    finally:
        with anyio.CancelScope(shield=True):
            await database.close()


_: type[ClickHouseDriver] = ChdbClickHouse
