"""``clickhouse+http://host:8123/db``: a real server by its HTTP interface, streamed both ways."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp

from edgesim.clickhouse import statements
from edgesim.clickhouse.driver import Answer, ClickHouseDriver, Statement
from edgesim.errors import ClickHouseError, RunError
from edgesim.model import iterate
from edgesim.urls import redact

DETERMINISTIC = False
CONNECT_SECONDS = 10.0
UNKNOWN_EXCEPTION = 1002
_CODE = re.compile(r"Code: (\d+)")


class HttpClickHouse:
    """A server's HTTP interface; always POST, since GET is read-only there."""

    def __init__(self, url: str, user: str | None, password: str | None) -> None:
        parts = urlsplit(url.partition("+")[2])
        self._shown = redact(url)
        self._base = f"{parts.scheme}://{parts.hostname}:{parts.port or 8123}/"
        self._database = parts.path.strip("/") or None
        name = user or parts.username
        secret = password if password is not None else parts.password
        self._auth = {"X-ClickHouse-User": name} if name else {}
        if secret is not None:
            self._auth["X-ClickHouse-Key"] = secret
        self._session: aiohttp.ClientSession | None = None

    async def execute(self, statement: Statement) -> Answer:
        """Pass it on; settings become parameters, data keeps its encoding."""
        parameters = {"default_format": statement.default_format, **statement.settings}
        database = statement.database or self._database
        if database:
            parameters["database"] = database
        headers = dict(self._auth)
        if statements.as_insert(statement.sql) is not None:
            parameters["query"] = statement.sql
            data = iterate(statement.data)
            if statement.encoding:
                headers["Content-Encoding"] = statement.encoding
            response = await self._post(parameters, headers, data)
        else:
            response = await self._post(parameters, headers, statement.sql.encode())
        if response.status != 200:
            raise await _failure(response)
        # Old servers do not say which format they wrote: it is what they were asked for.
        asked = statements.cut_format(statement.sql)[1] or statement.default_format
        wanted = response.headers.get("X-ClickHouse-Format", asked)
        return Answer(_chunks(response), wanted)

    async def _post(
        self, parameters: dict[str, str], headers: dict[str, str], data: object
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
            self._session = aiohttp.ClientSession(timeout=timeout)
        try:
            return await self._session.post(
                self._base, params=parameters, headers=headers, data=data
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RunError(f"ClickHouse at {self._shown} is out of reach: {error}") from error

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


async def _failure(response: aiohttp.ClientResponse) -> ClickHouseError:
    async with response:
        text = (await response.text()).strip()
    found = _CODE.search(text)
    header = response.headers.get("X-ClickHouse-Exception-Code")
    code = int(header) if header else int(found[1]) if found else UNKNOWN_EXCEPTION
    return ClickHouseError(code, text)


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with response:
        async for chunk in response.content.iter_any():
            yield chunk


@asynccontextmanager
async def open_clickhouse(
    url: str, user: str | None, password: str | None
) -> AsyncIterator[HttpClickHouse]:
    """The server at ``clickhouse+http://`` or ``clickhouse+https://``."""
    database = HttpClickHouse(url, user, password)
    try:
        yield database
    finally:
        await database.close()


_: type[ClickHouseDriver] = HttpClickHouse
