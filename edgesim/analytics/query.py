"""The SQL API's answers: statements of Analytics Engine's dialect, run through the gateway."""

from __future__ import annotations

from urllib.parse import urlencode

import structlog

from edgesim.analytics.dialect import translated
from edgesim.analytics.table import DATABASE, GATEWAY_URL
from edgesim.clickhouse.gateway import Gateway
from edgesim.clock import Clock
from edgesim.errors import ClickHouseError
from edgesim.model import HttpRequest, HttpResponse, read_all

INVALID = "Input was invalid: "
_SETTINGS = {
    "output_format_json_quote_64bit_integers": "1",
    "output_format_write_statistics": "0",
    "session_timezone": "Etc/UTC",
}
_TABLES = f"SHOW TABLES FROM {DATABASE} FORMAT TabSeparated"
_TEXT = "text/plain; charset=UTF-8"
_CODE = "x-clickhouse-exception-code"
_UNKNOWN_DATABASE = "81"
_LIMITS = {"159", "241"}
"""ClickHouse's codes for a statement that took too long or too much memory."""

log = structlog.get_logger()


class AnalyticsSql:
    """Runs statements and counts them, as the platform bills them."""

    def __init__(self, gateway: Gateway, clock: Clock) -> None:
        self._gateway = gateway
        self._clock = clock
        self.queries = 0

    async def answer(self, sql: str) -> HttpResponse:
        """The result of a statement: 200, 422 with a line for a bad one, 503 without a database."""
        self.queries += 1
        tables = await self._run(_TABLES)
        if tables.status != 200 and tables.header(_CODE) != _UNKNOWN_DATABASE:
            return await _failed(tables)
        names = (await read_all(tables.body)).decode().split() if tables.status == 200 else []
        try:
            statement, form = translated(sql, names, int(self._clock.now()))
        except ClickHouseError as error:
            return _plain(422, f"{INVALID}{error.message}")
        found = await self._run(f"{statement}\nFORMAT {form}")
        return found if found.status == 200 else await _failed(found)

    async def _run(self, sql: str) -> HttpResponse:
        # The gateway lets a GET read only.
        url = f"{GATEWAY_URL}?{urlencode({'query': sql} | _SETTINGS)}"
        return await self._gateway.fetch(HttpRequest("GET", url))


async def _failed(answer: HttpResponse) -> HttpResponse:
    text = (await read_all(answer.body)).decode("utf-8", "replace")
    line = text.partition("\n")[0][:1000]
    log.warning("analytics query failed", status=answer.status, error=line)
    code = answer.header(_CODE)
    if code is None:
        return _plain(503, line)
    problem = line.partition("DB::Exception: ")[2] or line
    return _plain(500, problem) if code in _LIMITS else _plain(422, f"{INVALID}{problem}")


def _plain(status: int, line: str) -> HttpResponse:
    return HttpResponse(status, [("content-type", _TEXT)], f"{line}\n".encode())
