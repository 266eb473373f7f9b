"""The gateway: ClickHouse's HTTP interface over any driver.

Facts: ClickHouse's documentation of its HTTP interface.  User and password parameters are accepted
and not looked at: whoever reaches the gateway is trusted, and the driver has its own credentials.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from urllib.parse import parse_qsl, urlsplit

import anyio
import msgspec

from edgesim.clickhouse import statements
from edgesim.clickhouse.driver import ClickHouseDriver, Statement
from edgesim.errors import ClickHouseError, RunError
from edgesim.model import Body, HttpRequest, HttpResponse, Stream, read_all

READONLY = 164
SYNTAX_ERROR = 62

# Parameters that are not settings.
_OWN = {
    *("query", "database", "default_format", "user", "password", "query_id", "session_id"),
    *("compress", "decompress", "quota_key", "session_timeout", "session_check", "role"),
}
_STATUS = {
    **dict.fromkeys((6, 26, 27, 36, 38, 41, 43, 44, 53, 62, 70, 72, 117, 130), 400),
    **dict.fromkeys((192, 193, 194, 516), 403),
    **dict.fromkeys((46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 336), 404),
    48: 501,
    209: 503,
}
_CONTENT_TYPES = {
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TabSeparatedWithNames": "text/tab-separated-values; charset=UTF-8",
    "Parquet": "application/octet-stream",
    "Native": "application/octet-stream",
}
_TEXT = "text/plain; charset=UTF-8"


class Gateway:
    """HTTP in, statements out; ``schema`` is SQL that is applied before the first statement."""

    def __init__(self, driver: ClickHouseDriver, schema: str = "") -> None:
        self._driver = driver
        self._schema = statements.split(schema)
        self._schema_applied = not self._schema
        self._applying = anyio.Lock()

    async def fetch(self, request: HttpRequest) -> HttpResponse:
        """Answer one request; errors are answers too, in ClickHouse's own form."""
        parts = urlsplit(request.url)
        parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
        if parts.path == "/ping" or (request.method == "GET" and "query" not in parameters):
            return HttpResponse(200, [("content-type", _TEXT)], b"Ok.\n")
        try:
            await self._apply_schema()
            return await self._run(request, parameters)
        except ClickHouseError as error:
            return _error(error)
        except RunError as error:
            return HttpResponse(503, [("content-type", _TEXT)], f"{error}\n".encode())

    async def _apply_schema(self) -> None:
        async with self._applying:
            if self._schema_applied:
                return
            for sql in self._schema:
                try:
                    await _exhaust((await self._driver.execute(Statement(sql))).body)
                except ClickHouseError as error:
                    first = " ".join(sql.split())[:60]
                    raise ClickHouseError(
                        error.code, f"{error.message} (in the schema, at: {first})"
                    ) from error
            self._schema_applied = True

    async def _run(self, request: HttpRequest, parameters: dict[str, str]) -> HttpResponse:
        statement = await _statement(request, parameters)
        if request.method == "GET" and statements.kind(statement.sql) not in statements.READ_KINDS:
            raise ClickHouseError(
                READONLY,
                f"Code: {READONLY}. DB::Exception: Cannot execute query in readonly mode. For "
                "queries over HTTP, method GET implies readonly. You should use method POST for "
                "modifying queries. (READONLY)",
            )
        answer = await self._driver.execute(statement)
        headers = [
            ("content-type", _CONTENT_TYPES.get(answer.format, _TEXT)),
            ("x-clickhouse-format", answer.format),
        ]
        if answer.written_rows is not None:
            summary = msgspec.json.encode({"written_rows": str(answer.written_rows)}).decode()
            headers.append(("x-clickhouse-summary", summary))
        return HttpResponse(200, headers, Stream(answer.body))


async def _statement(request: HttpRequest, parameters: dict[str, str]) -> Statement:
    encoding = request.header("content-encoding")
    if encoding not in {None, "", "identity", "gzip"}:
        raise ClickHouseError(statements.BAD_ARGUMENTS, f"Unknown Content-Encoding {encoding!r}")
    encoding = "gzip" if encoding == "gzip" else None
    sql = parameters.get("query", "")
    data: Body = b""
    insert = statements.as_insert(sql) if sql else None
    if insert is not None and not insert.inline.strip():
        data = request.body
    else:
        text = await _read_text(request.body, encoding)
        encoding = None
        sql = f"{sql}\n{text}" if sql and text else sql or text
        insert = statements.as_insert(sql)
        if insert is not None:
            data = insert.inline.encode()
            sql = f"{insert.head} FORMAT {insert.format}"
    if not statements.kind(sql):
        raise ClickHouseError(
            SYNTAX_ERROR, f"Code: {SYNTAX_ERROR}. DB::Exception: Empty query. (SYNTAX_ERROR)"
        )
    default_format = parameters.get("default_format") or request.header("x-clickhouse-format")
    return Statement(
        sql=sql,
        data=data,
        encoding=encoding,
        default_format=default_format or "TabSeparated",
        database=parameters.get("database") or request.header("x-clickhouse-database"),
        settings={name: value for name, value in parameters.items() if name not in _OWN},
    )


async def _read_text(body: Body, encoding: str | None) -> str:
    content = await read_all(body)
    if encoding == "gzip":
        try:
            content = zlib.decompress(content, 31)
        except zlib.error as error:
            raise ClickHouseError(statements.BAD_ARGUMENTS, f"not valid gzip: {error}") from error
    return content.decode("utf-8", "replace")


async def _exhaust(body: AsyncIterator[bytes]) -> None:
    async for _ in body:
        pass


def _error(error: ClickHouseError) -> HttpResponse:
    text = error.message
    if not text.startswith("Code:"):
        text = f"Code: {error.code}. DB::Exception: {text}"
    headers = [("content-type", _TEXT), ("x-clickhouse-exception-code", str(error.code))]
    return HttpResponse(_STATUS.get(error.code, 500), headers, f"{text}\n".encode())
