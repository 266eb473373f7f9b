"""``clickhouse://host:9000/db``: a real server by its native protocol, through clickhouse-driver.

The client is synchronous and not safe to share, so each statement has a client and a thread of its
own.  Inserts of text formats are refused here, with the cure: the server parses them itself over
HTTP, several times faster than Python could (clickhouse+http://).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from anyio.to_thread import run_sync  # noqa: TID251 (a blocking client, not deterministic)
from clickhouse_driver import Client
from clickhouse_driver.errors import Error, ServerException

from edgesim.clickhouse import formats, statements
from edgesim.clickhouse.driver import Answer, ClickHouseDriver, Statement
from edgesim.errors import ClickHouseError, RunError
from edgesim.urls import redact

DETERMINISTIC = False
CONNECT_SECONDS = 10
ANSWER_SECONDS = 300
NOT_IMPLEMENTED = 48


class NativeClickHouse:
    """A server's native port."""

    def __init__(self, url: str, user: str | None, password: str | None) -> None:
        parts = urlsplit(url)
        self._shown = redact(url)
        self._options: dict[str, Any] = {
            "host": parts.hostname,
            "port": parts.port or 9000,
            "user": user or parts.username or "default",
            "password": password if password is not None else parts.password or "",
            "database": parts.path.strip("/"),
            "connect_timeout": CONNECT_SECONDS,
            "send_receive_timeout": ANSWER_SECONDS,
        }

    async def execute(self, statement: Statement) -> Answer:
        """Run it in a thread and write its rows in the format asked for."""
        if statements.as_insert(statement.sql) is not None:
            raise ClickHouseError(
                NOT_IMPLEMENTED,
                "inserting formatted data over the native protocol is not supported; name the "
                "server as clickhouse+http://host:8123",
            )
        sql, own_format = statements.cut_format(statement.sql)
        wanted = own_format or statement.default_format
        write = formats.writer(wanted)
        rows, columns = await run_sync(self._ask, sql, statement)
        return Answer(_once(write(rows, columns)), wanted)

    def _ask(self, sql: str, statement: Statement) -> tuple[list[Any], list[tuple[str, str]]]:
        options = self._options | ({"database": statement.database} if statement.database else {})
        client = Client(**options)
        try:
            result = client.execute(sql, with_column_types=True, settings=dict(statement.settings))
        except ServerException as error:
            text = f"Code: {error.code}. {error.message.partition(' Stack trace:')[0].strip()}"
            raise ClickHouseError(error.code, text) from error
        except (Error, OSError, EOFError) as error:
            raise RunError(f"ClickHouse at {self._shown} is out of reach: {error}") from error
        finally:
            client.disconnect()
        return result if isinstance(result, tuple) else ([], [])


async def _once(body: bytes) -> AsyncIterator[bytes]:
    if body:
        yield body


@asynccontextmanager
async def open_clickhouse(
    url: str, user: str | None, password: str | None
) -> AsyncIterator[NativeClickHouse]:
    """The server at ``clickhouse://``."""
    yield NativeClickHouse(url, user, password)


_: type[ClickHouseDriver] = NativeClickHouse
