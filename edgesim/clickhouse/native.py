"""``clickhouse://host:9000/db``: a real server by its native protocol, through clickhouse-driver.

The client is synchronous and not safe to share, so each statement has a client and a thread of its
own.  Inserts of rows as text are refused here, with the cure: over HTTP (clickhouse+http://) the
server parses them itself, several times faster than Python could.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import anyio
from anyio.to_thread import run_sync  # noqa: TID251 (a blocking client, not deterministic)
from clickhouse_driver import Client
from clickhouse_driver.errors import Error, ServerException
from clickhouse_driver.settings.available import settings as known_settings

from edgesim.clickhouse import formats, statements
from edgesim.clickhouse.driver import Answer, ClickHouseDriver, Statement
from edgesim.clickhouse.exceptions import NOT_IMPLEMENTED, from_text
from edgesim.errors import ClickHouseError, RunError
from edgesim.model import iterate
from edgesim.urls import redact

DETERMINISTIC = False
CONNECT_SECONDS = 10
ANSWER_SECONDS = 300
UNKNOWN_SETTING = 115
SETTINGS_AS_STRINGS = 54429
"""The protocol revision from which the server itself checks the names of settings."""


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
                "inserting rows as text over the native protocol is not supported; name the "
                "server as clickhouse+http://host:8123",
            )
        wanted = statements.trailing_format(statement.sql) or statement.default_format
        write = formats.writer(wanted, statement.settings)
        options = self._options | ({"database": statement.database} if statement.database else {})
        client = Client(**options)
        try:
            rows, columns = await run_sync(self._ask, client, statement, abandon_on_cancel=True)
        except anyio.get_cancelled_exc_class():
            client.disconnect()  # the thread wakes up from its wait for the server
            raise
        return Answer(iterate(write(rows, columns)), wanted)

    def _ask(self, client: Client, statement: Statement) -> tuple[list[Any], list[tuple[str, str]]]:
        try:
            client.connection.connect()
            _check_settings(client, statement)
            result = client.execute(
                statement.sql,
                with_column_types=True,
                query_id=statement.query_id,
                settings=dict(statement.settings),
            )
        except ServerException as error:
            raise from_text(error.message, error.code) from error
        except (Error, OSError, EOFError) as error:
            raise RunError(f"ClickHouse at {self._shown} is out of reach: {error}") from error
        finally:
            client.disconnect()
        return result if isinstance(result, tuple) else ([], [])


def _check_settings(client: Client, statement: Statement) -> None:
    """To old servers settings go in a binary form, and the client drops what it does not know."""
    if client.connection.server_info.used_revision >= SETTINGS_AS_STRINGS:
        return
    unknown = sorted(set(statement.settings) - set(known_settings))
    if unknown:
        raise ClickHouseError(UNKNOWN_SETTING, f"Unknown setting {unknown[0]}")


@asynccontextmanager
async def open_clickhouse(
    url: str, user: str | None, password: str | None
) -> AsyncIterator[NativeClickHouse]:
    """The server at ``clickhouse://``."""
    yield NativeClickHouse(url, user, password)


_: type[ClickHouseDriver] = NativeClickHouse
