"""``clickhouse+http://host:8123/db``: driver of a server by its HTTP interface, streamed both ways.

Data is always sent as gzip: an old server takes an interrupted upload as complete (18.16 inserted
the part it had received), but every server rejects gzip without its trailer.  Each statement has
its own connection: on a kept one that the server has closed meanwhile, a statement that failed
cannot be distinguished from one that ran.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from edgesim.clickhouse import address, statements
from edgesim.clickhouse.compression import gzip
from edgesim.clickhouse.driver import ClickHouseDriver, QueryResult, Statement
from edgesim.clickhouse.exceptions import from_text
from edgesim.errors import EdgesimError, RunError
from edgesim.model import iterate

DETERMINISTIC = False
EMBEDDED = False
SHARED = True
DURABLE = True
CREDENTIALS = {"user": "EDGESIM_CLICKHOUSE_USER", "password": "EDGESIM_CLICKHOUSE_PASSWORD"}
SILENCE_SECONDS = 300.0
"""Maximum silence, thus duration of a statement: the server replies only when it is complete."""
ONE_BLOCK = {"min_insert_block_size_rows": "0", "min_insert_block_size_bytes": str(1 << 30)}
"""The server merges the blocks of an insert into one, which is written atomically, up to 1 GiB."""


class HttpClickHouse:
    """Driver of a server's HTTP interface; always POST, because GET is read-only there."""

    def __init__(self, url: str, user: str | None, password: str | None) -> None:
        where = address.read(url)
        self._shown = where.shown
        scheme = "https" if where.secure else "http"
        host = f"[{where.host}]" if ":" in where.host else where.host
        self._base = f"{scheme}://{host}:{where.port}/"
        self._database = where.database or None
        self._tls = where.tls()
        self._silence = where.timeout or SILENCE_SECONDS
        self._auth = {}
        if user or password is not None:
            self._auth = {
                "X-ClickHouse-User": user or "default",
                "X-ClickHouse-Key": password or "",
            }
        self._session: aiohttp.ClientSession | None = None

    async def execute(self, statement: Statement) -> QueryResult:
        """Send a statement to the server; settings become parameters."""
        # The server buffers its response until the end: otherwise an error after the first rows
        # would be their last row, under status 200.
        parameters = {"default_format": statement.default_format, "wait_end_of_query": "1"}
        parameters |= statement.settings
        if statement.query_id:
            parameters["query_id"] = statement.query_id
        database = statement.database or self._database
        if database:
            parameters["database"] = database
        if statements.as_insert(statement.sql) is not None:
            parameters = ONE_BLOCK | parameters | {"query": statement.sql}
            response = await self._insert(parameters, statement)
        else:
            response = await self._post(parameters, self._auth, statement.sql.encode())
        if response.status != 200:
            raise await self._failure(response)
        # Old servers do not report the format: it is the requested one.
        asked = statements.trailing_format(statement.sql) or statement.default_format
        wanted = response.headers.get("X-ClickHouse-Format", asked)
        return QueryResult(_HttpRows(response, self._shown), wanted, _written_rows(response))

    async def _insert(
        self, parameters: dict[str, str], statement: Statement
    ) -> aiohttp.ClientResponse:
        source = _Source(iterate(statement.data))
        data = aiter(source) if statement.encoding == "gzip" else gzip(aiter(source))
        try:
            return await self._post(parameters, self._auth | {"Content-Encoding": "gzip"}, data)
        except RunError:
            if source.error is not None:
                raise source.error from None  # the data failed, not the server
            raise

    async def _post(
        self, parameters: dict[str, str], headers: dict[str, str], data: object
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(
                total=None, sock_connect=address.CONNECT_SECONDS, sock_read=self._silence
            )
            connector = aiohttp.TCPConnector(force_close=True, ssl=self._tls or True)
            self._session = aiohttp.ClientSession(timeout=timeout, connector=connector)
        try:
            return await self._session.post(
                self._base, params=parameters, headers=headers, data=data
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RunError(
                f"ClickHouse at {self._shown} is out of reach: {_said(error)}"
            ) from error

    async def _failure(self, response: aiohttp.ClientResponse) -> EdgesimError:
        async with response:
            text = (await response.text(errors="replace")).strip()
        code = response.headers.get("X-ClickHouse-Exception-Code")
        if code is None and "Code: " not in text:
            first = text.partition("\n")[0][:200]
            return RunError(
                f"{self._shown} answered {response.status} and not ClickHouse: {first}",
                "see the host and the port: HTTP's is 8123, or 8443 with TLS",
            )
        return from_text(text, int(code) if code else None)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


class _Source:
    """Data of an upload; keeps the error that interrupted it, which aiohttp hides by its own."""

    def __init__(self, data: AsyncIterator[bytes]) -> None:
        self._data = data
        self.error: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._data:
                yield chunk
        except Exception as error:
            self.error = error
            raise


class _HttpRows:
    """Streamed response; a class, because ``aclose`` on an unstarted generator runs no code."""

    def __init__(self, response: aiohttp.ClientResponse, shown: str) -> None:
        self._response = response
        self._shown = shown

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await self._response.content.readany()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            await self.aclose()
            raise RunError(
                f"the response of ClickHouse at {self._shown} was cut off: {error}"
            ) from error
        if chunk:
            return chunk
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Discard the rest and close the connection."""
        self._response.close()


def _said(error: Exception) -> str:
    return str(error) or "it does not answer"


def _written_rows(response: aiohttp.ClientResponse) -> int | None:
    summary = json.loads(response.headers.get("X-ClickHouse-Summary", "{}"))
    return int(summary["written_rows"]) if "written_rows" in summary else None


@asynccontextmanager
async def open_clickhouse(
    url: str, user: str | None = None, password: str | None = None
) -> AsyncIterator[HttpClickHouse]:
    """Open the driver for ``clickhouse+http://`` or ``clickhouse+https://``."""
    database = HttpClickHouse(url, user, password)
    try:
        yield database
    finally:
        await database.close()


_: type[ClickHouseDriver] = HttpClickHouse
