"""``clickhouse://host:9000/db``: driver of a server by its native protocol (clickhouse-driver).

The client is synchronous and not thread-safe, so each statement has a thread and, while it runs,
its own client.  Idle clients are kept and pinged before the next statement, so a restart of the
server only causes a new connection.

Rows of JSONEachRow are decoded here and sent as columns, block by block; every other format, VALUES
and input() need the server's parser, which the native protocol does not offer: they are refused
with the fix.  Settings that the server does not have are refused too: the protocol's old form
drops them, and a lost insert_deduplication_token is a double insert.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import anyio
from anyio.to_thread import run_sync  # noqa: TID251 (a blocking client, not deterministic)
from clickhouse_driver import Client
from clickhouse_driver.block import ColumnOrientedBlock
from clickhouse_driver.errors import Error, ServerException, TypeMismatchError
from clickhouse_driver.protocol import ClientPacketTypes
from clickhouse_driver.settings.available import settings as known_settings
from clickhouse_driver.varint import write_varint
from clickhouse_driver.writer import write_binary_str

from edgesim.clickhouse import address, statements
from edgesim.clickhouse.compression import Gunzip
from edgesim.clickhouse.driver import ClickHouseDriver, QueryResult, Statement
from edgesim.clickhouse.exceptions import NOT_IMPLEMENTED, from_text
from edgesim.clickhouse.native import formats
from edgesim.clickhouse.native.rows import HTTP_CURE, INCORRECT_DATA, Column, LineDecoder
from edgesim.errors import ClickHouseError, RunError
from edgesim.model import iterate

DETERMINISTIC = False
EMBEDDED = False
SHARED = True
DURABLE = True
CREDENTIALS = {"user": "EDGESIM_CLICKHOUSE_USER", "password": "EDGESIM_CLICKHOUSE_PASSWORD"}
CAUTION = (
    "the native protocol inserts JSONEachRow only, no input()",
    "clickhouse+http://host:8123 inserts whatever the server reads, and faster",
)
SILENCE_SECONDS = 60.0
"""Maximum silence: a working server reports its progress, so a silent one hangs."""
CLIENTS_MAX = 16
KEPT_CLIENTS_MAX = 4
NO_SUCH_COLUMN = 16
UNKNOWN_SETTING = 115
SETTINGS_AS_STRINGS = 54429
"""Protocol revision from which settings are sent as text, whatever their names."""
BLOCK_BYTES = 4 << 20
"""Size of JSON decoded at a time; as Python objects it takes about ten times as much."""
PACKED_BYTES = 1 << 14
"""Size of gzip decompressed at a time; it expands to at most 16 MB."""
ROW_BYTES_MAX = 64 << 20
ONE_BLOCK = {"min_insert_block_size_rows": "0", "min_insert_block_size_bytes": str(1 << 30)}
"""The server merges the blocks of an insert into one, which is written atomically, up to 1 GiB."""
LINES = {"JSONEACHROW", "JSONLINES", "NDJSON"}
_LEAVE_NO_STATE = {"SELECT", "WITH", "INSERT", "SHOW", "DESCRIBE", "DESC", "EXISTS"}
_T = TypeVar("_T")

logging.getLogger("clickhouse_driver").addHandler(
    logging.NullHandler()
)  # this driver reports its errors


class NativeClickHouse:
    """Driver of a server's native protocol, with a pool of clients."""

    def __init__(self, url: str, user: str | None, password: str | None) -> None:
        where = address.read(url)
        self._shown = where.shown
        self._database = where.database
        self._limiter = anyio.CapacityLimiter(CLIENTS_MAX)
        self._idle: list[Client] = []
        self._in_use: set[int] = set()
        self._settings: dict[str, str] = {}
        self._options: dict[str, Any] = {
            "host": where.host,
            "port": where.port,
            "user": user or "default",
            "password": password or "",
            "database": where.database,
            "connect_timeout": address.CONNECT_SECONDS,
            "send_receive_timeout": where.timeout or SILENCE_SECONDS,
            "sync_request_timeout": min(5.0, where.timeout or SILENCE_SECONDS),
            "settings_is_important": True,
        }
        if where.secure:
            self._options |= {"secure": True, "verify": where.verify, "ca_certs": where.ca}

    async def execute(self, statement: Statement) -> QueryResult:
        """Run a statement in a thread and write its rows in the requested format."""
        insert = statements.as_insert(statement.sql)
        if insert is not None:
            return await self._insert(statement, insert)
        wanted = statements.trailing_format(statement.sql) or statement.default_format
        write = formats.writer(wanted, statement.settings)
        client = self._take(statement)
        rows = _NativeRows(self, client, statement, write)
        await rows.begin()
        return QueryResult(rows, wanted)

    async def _insert(self, statement: Statement, insert: statements.Insert) -> QueryResult:
        if insert.input or insert.format.upper() not in LINES:
            what = "input()" if insert.input else f"rows as {insert.format}"
            raise ClickHouseError(
                NOT_IMPLEMENTED, f"{what} cannot be inserted over the native protocol; {HTTP_CURE}"
            )
        table, names = statements.target(insert.head)
        client = self._take(statement)
        try:
            upload = await self.in_thread(client, _Upload, self, client, statement, table, names)
            async for chunk in iterate(statement.data):
                await self.in_thread(client, upload.feed, chunk)
            written = await self.in_thread(client, upload.finish)
        except BaseException:
            self.disconnect(client)  # the server discards an insert without its end
            raise
        self._give_back(client)
        return QueryResult(iterate(b""), statement.default_format, written)

    async def in_thread(self, client: Client, function: Callable[..., _T], *args: Any) -> _T:
        """Run a blocking function in a thread; cancelling it closes the connection.

        The client's errors are raised as ClickHouseError or RunError.
        """

        def run() -> _T:
            self._in_use.add(id(client))
            try:
                return function(*args)
            except BaseException:
                client.disconnect()  # in the thread that uses it: the client is not thread-safe
                raise
            finally:
                self._in_use.discard(id(client))

        try:
            return await run_sync(run, abandon_on_cancel=True, limiter=self._limiter)
        except anyio.get_cancelled_exc_class():
            self.disconnect(client)
            raise
        except ServerException as error:
            raise from_text(error.message, error.code) from error
        except TypeMismatchError as error:
            raise ClickHouseError(error.code, str(error.message)) from error
        except (Error, OSError, EOFError) as error:
            self._settings = {}  # the next connection may reach another version
            said = str(error).partition("\n")[0]
            raise RunError(f"ClickHouse at {self._shown} is out of reach: {said}") from error

    def begin(
        self, client: Client, sql: str, settings: dict[str, str], query_id: str | None
    ) -> None:
        """Connect if needed, and send the statement; blocks, call it in a thread."""
        there = self.server_settings(client) if settings else {}
        client.establish_connection(settings)
        client.connection.server_info.session_timezone = None
        if client.connection.server_info.used_revision < SETTINGS_AS_STRINGS:
            self._check_settings(settings, there)
        client.connection.send_query(sql, query_id=query_id)
        client.connection.send_external_tables(None)

    def ask(self, client: Client, sql: str) -> list[Any]:
        """Return the rows of a short response; blocks, call it in a thread."""
        rows: list[Any] = client.execute(sql)
        return rows

    def server_settings(self, client: Client) -> dict[str, str]:
        """Return the server's settings, queried once; blocks, call it in a thread."""
        if not self._settings:
            self._settings = dict(self.ask(client, "SELECT name, value FROM system.settings"))
        return self._settings

    def done(self, client: Client, statement: Statement) -> None:
        """Keep the client of a successful statement, unless it may have changed session state."""
        if statements.kind(statement.sql) in _LEAVE_NO_STATE:
            self._give_back(client)
        else:
            client.disconnect()

    def disconnect(self, client: Client) -> None:
        """Close the connection; a thread that uses it fails and closes it itself."""
        connected = client.connection.socket
        if id(client) not in self._in_use:
            client.disconnect()
        elif connected is not None:
            with suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    async def close(self) -> None:
        """Close idle connections; a server that shuts down waits for them."""
        while self._idle:
            self._idle.pop().disconnect()

    def _take(self, statement: Statement) -> Client:
        database = statement.database or self._database
        for client in self._idle:
            if client.connection.database == database:
                self._idle.remove(client)
                return client
        return Client(**self._options | {"database": database})

    def _give_back(self, client: Client) -> None:
        self._idle.append(client)
        if len(self._idle) > KEPT_CLIENTS_MAX:
            self._idle.pop(0).disconnect()

    def _check_settings(self, asked: dict[str, str], there: dict[str, str]) -> None:
        """Refuse unknown settings: the old protocol silently drops those unknown to either side."""
        unknown = sorted(set(asked).difference(there.keys() & known_settings.keys()))
        if unknown:
            raise ClickHouseError(
                UNKNOWN_SETTING, f"Unknown setting {unknown[0]} (for ClickHouse at {self._shown})"
            )


class _NativeRows:
    """Streamed response, a block at a time; a class, so that it can be closed before it is read."""

    def __init__(
        self, driver: NativeClickHouse, client: Client, statement: Statement, write: Any
    ) -> None:
        self._driver = driver
        self._client = client
        self._statement = statement
        self._write = write
        self._writer: formats.Writer | None = None
        self._blocks: Iterator[Any] = iter(())
        self._first: bytes | None = None
        self._ended = False

    async def begin(self) -> None:
        """Read up to the first rows, so that an early error is raised instead of a response."""
        try:
            self._first = await self._driver.in_thread(self._client, self._start)
        except BaseException:
            self._ended = True
            self._driver.disconnect(self._client)
            raise
        if self._ended:
            self._driver.done(self._client, self._statement)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        if self._ended:
            raise StopAsyncIteration
        try:
            text = await self._driver.in_thread(self._client, self._next)
        except BaseException:
            self._ended = True
            self._driver.disconnect(self._client)
            raise
        if self._ended:
            self._driver.done(self._client, self._statement)
        return text

    async def aclose(self) -> None:
        """Discard the rest and close the connection."""
        self._first = None
        if not self._ended:
            self._ended = True
            self._client.disconnect()

    def _start(self) -> bytes:
        settings = dict(self._statement.settings)
        self._driver.begin(self._client, self._statement.sql, settings, self._statement.query_id)
        self._blocks = self._client.packet_generator()
        return self._next()

    def _next(self) -> bytes:
        """Return the text of the next rows, including the format's head and foot."""
        for packet in self._blocks:
            block = getattr(packet, "block", None)
            if block is None:
                continue
            head = b""
            if self._writer is None:
                self._writer = self._write(block.columns_with_types)
                head = self._writer.head
            if text := head + self._writer.write(block.get_rows()):
                return text
        self._ended = True
        return self._writer.foot() if self._writer else b""


class _Upload:
    """A running insert; its methods run in threads, one after the other."""

    def __init__(
        self,
        driver: NativeClickHouse,
        client: Client,
        statement: Statement,
        table: str,
        names: list[str] | None,
    ) -> None:
        self._driver = driver
        self._client = client
        self._table = table
        self._settings = ONE_BLOCK | dict(statement.settings)
        self._query_id = statement.query_id
        self._member = Gunzip() if statement.encoding == "gzip" else None
        self._line = bytearray()
        self._types: list[tuple[str, str]] | None = None
        self._written = 0
        described = driver.ask(client, f"DESCRIBE TABLE {table}")
        own = driver.server_settings(client)
        self._rows = LineDecoder(_columns(described, names), own | self._settings)

    def feed(self, chunk: bytes) -> None:
        """Add a chunk of data; complete rows are sent in blocks of about BLOCK_BYTES."""
        for at in range(0, len(chunk), PACKED_BYTES):
            piece = chunk[at : at + PACKED_BYTES]
            self._line += self._member.feed(piece) if self._member else piece
            if len(self._line) >= BLOCK_BYTES:
                self._send_lines()

    def finish(self) -> int:
        """End the data, wait for the server's acknowledgement, and return the rows written."""
        if self._member:
            self._member.finish()
        if self._line.strip():
            self._send_block(bytes(self._line))
        if self._types is None:
            return 0
        self._send(ColumnOrientedBlock())
        self._client.receive_end_of_insert_query()
        return self._written

    def _send_lines(self) -> None:
        end = self._line.rfind(b"\n") + 1
        if not end and len(self._line) > ROW_BYTES_MAX:
            raise ClickHouseError(INCORRECT_DATA, f"a row is over {ROW_BYTES_MAX} bytes")
        if end:
            lines = bytes(self._line[:end])
            del self._line[:end]
            self._send_block(lines)

    def _send_block(self, lines: bytes) -> None:
        columns = self._rows.decode(lines)
        if not columns or not columns[0]:
            return
        if self._types is None:
            self._types = self._begin()
        self._send(ColumnOrientedBlock(self._types, columns))
        self._begin_packet()
        self._written += len(columns[0])

    def _begin_packet(self) -> None:
        """Send the first byte of the next data packet.

        Old servers (18.16) take a connection that ends between two packets for the end of the
        insert and store the rows so far.  Within a packet it is an error on every server, so an
        insert that is given up, or a process that is killed, leaves no rows.
        """
        write_varint(ClientPacketTypes.DATA, self._client.connection.fout)
        self._client.connection.fout.flush()

    def _send(self, block: ColumnOrientedBlock) -> None:
        """Send the rest of the data packet that ``_begin_packet`` began."""
        connection = self._client.connection
        write_binary_str("", connection.fout)  # data of the statement, not of an external table
        connection.block_out.write(block)
        self._client.receive_profile_events()

    def _begin(self) -> list[tuple[str, str]]:
        named = ", ".join(statements.named(column.name) for column in self._rows.columns())
        sql = f"INSERT INTO {self._table} ({named}) VALUES"
        self._driver.begin(self._client, sql, self._settings, self._query_id)
        types: list[tuple[str, str]] = self._client.receive_sample_block().columns_with_types
        self._begin_packet()
        return types


def _columns(described: list[Any], names: list[str] | None) -> list[Column]:
    """Return the columns to insert into; ``described`` has name, type and default kind of each.

    ClickHouseError if a name is not a column of the table.
    """
    there = {name: (kind, default) for name, kind, default, *_ in described}
    if names is None:
        names = [name for name, (_, default) in there.items() if default in {"", "DEFAULT"}]
    for name in names:
        if name not in there:
            raise ClickHouseError(NO_SUCH_COLUMN, f"There is no column {name} in the table")
    return [Column(name, there[name][0], there[name][1] == "DEFAULT") for name in names]


@asynccontextmanager
async def open_clickhouse(
    url: str, user: str | None = None, password: str | None = None
) -> AsyncIterator[NativeClickHouse]:
    """Open the driver for ``clickhouse://`` or, with TLS, ``clickhouses://``."""
    database = NativeClickHouse(url, user, password)
    try:
        yield database
    finally:
        await database.close()


_: type[ClickHouseDriver] = NativeClickHouse
