"""The gateway: ClickHouse's HTTP interface over any driver.

Facts: ClickHouse's documentation of its HTTP interface.  User and password parameters are accepted
and ignored: clients of the gateway are trusted, and the driver has its own credentials.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import parse_qsl, urlsplit

import anyio
import msgspec

from edgesim.clickhouse import inserted, statements
from edgesim.clickhouse.complete import completed
from edgesim.clickhouse.compression import gunzip, gzip
from edgesim.clickhouse.driver import ClickHouseDriver, QueryResult, Statement
from edgesim.clickhouse.exceptions import NOT_IMPLEMENTED, http_status
from edgesim.errors import ClickHouseError, RunError
from edgesim.model import Headers, HttpRequest, HttpResponse, Stream, iterate
from edgesim.taps import Tap
from edgesim.tracing import TEXT_CHARS_MAX, Tracer, current, parsed

INTO_OUTFILE_NOT_ALLOWED = 358
READONLY = 164
_READONLY = (
    "Cannot execute query in readonly mode. For queries over HTTP, method GET implies readonly. "
    "You should use method POST for modifying queries"
)
CALLER_MAX = 8
"""Maximum concurrent statements of one Worker; further ones wait, so that others can run."""
MAX_QUERY_BYTES = 262_144
"""max_query_size: maximum bytes of a body read as SQL; an INSERT's data is not counted."""

# Parameters that are not settings.
_OWN = {
    *("query", "database", "default_format", "user", "password", "query_id", "session_id"),
    *("compress", "decompress", "quota_key", "session_timeout", "session_check", "role"),
    *("buffer_size", "wait_end_of_query", "client_protocol_version", "enable_http_compression"),
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
    """Translates HTTP requests to statements; ``schema`` is SQL applied before the first one."""

    def __init__(
        self, driver: ClickHouseDriver, schema: str = "", schema_name: str = "the schema"
    ) -> None:
        self._driver = driver
        self._schema_name = schema_name
        self._schema = schema
        self._schema_applied = not schema.strip()
        self._applying = anyio.Lock()
        self._shares: dict[str, anyio.Semaphore] = {}
        self.tap: Tap | None = None
        """Watchers of the inserts that succeed."""
        self.tracer: Tracer | None = None

    async def fetch(self, request: HttpRequest, caller: str = "") -> HttpResponse:
        """Serve one request; errors become responses in ClickHouse's format.

        ``caller`` is the Worker whose share of concurrent statements it counts against.
        """
        parts = urlsplit(request.url)
        parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
        if parts.path == "/ping" or (request.method == "GET" and "query" not in parameters):
            return HttpResponse(200, [("content-type", _TEXT)], b"Ok.\n")
        if parts.path not in {"", "/"}:
            problem = f"There is no handle {parts.path}\n"
            return HttpResponse(404, [("content-type", _TEXT)], problem.encode())
        try:
            await self._apply_schema()
            statement = await _statement(request, parameters)
            return await self._run(statement, request, parameters, caller)
        except ClickHouseError as error:
            return _error(error)
        except RunError as error:
            return HttpResponse(503, [("content-type", _TEXT)], f"{error}\n".encode())
        finally:
            if isinstance(request.body, Stream):
                await request.body.aclose()

    async def change_schema(self, schema: str) -> None:
        """Apply another schema immediately.

        Raises ClickHouseError or RunError if a statement fails: the rest of the schema is not
        applied, and requests continue as before.
        """
        async with self._applying:
            await self._apply(schema)
            self._schema, self._schema_applied = schema, True

    async def _apply_schema(self) -> None:
        async with self._applying:
            if not self._schema_applied:
                await self._apply(self._schema)
                self._schema_applied = True

    async def _apply(self, schema: str) -> None:
        for sql in statements.split(schema):
            try:
                statement = await _cut(Statement("", sql.encode()), None)
                await _exhaust((await self._driver.execute(statement)).body)
            except ClickHouseError as error:
                first = " ".join(sql.split())[:60]
                problem = f"{error.message} (in {self._schema_name}, at: {first})"
                raise ClickHouseError(error.code, problem) from error

    async def _run(
        self,
        statement: Statement,
        request: HttpRequest,
        parameters: dict[str, str],
        caller: str,
    ) -> HttpResponse:
        watch = inserted.watch(statement, caller) if self.tap and self.tap.readers else None
        answer = await self._traced(statement, request, caller)
        if self.tap and watch:
            self.tap.offer(1, [watch.record(answer.written_rows)])
        headers: Headers = [
            ("content-type", _CONTENT_TYPES.get(answer.format, _TEXT)),
            ("x-clickhouse-format", answer.format),
        ]
        if "query_id" in parameters:
            headers.append(("x-clickhouse-query-id", parameters["query_id"]))
        if answer.written_rows is not None:
            summary = msgspec.json.encode({"written_rows": str(answer.written_rows)}).decode()
            headers.append(("x-clickhouse-summary", summary))
        body = Stream(answer.body)
        encoded = _wants_gzip(request, parameters)
        if encoded:
            headers.append(("content-encoding", "gzip"))
            body = Stream(_packed(answer.body))
        whole = parameters.get("wait_end_of_query", "0") != "0"
        content = await completed(body) if whole else body
        return HttpResponse(200, headers, content, encoded=encoded)

    async def _traced(self, statement: Statement, request: HttpRequest, caller: str) -> QueryResult:
        """Execute a statement, as a span if it belongs to a trace."""
        if self.tracer is None:
            return await self._execute(statement, caller)
        parent = current.get()
        remote = parent is None
        if parent is None:
            parent = parsed(request.header("traceparent"), request.header("tracestate"))
        if parent is None:
            return await self._execute(statement, caller)
        insert = statements.as_insert(statement.sql)
        name = "clickhouse_query" if insert is None else "clickhouse_insert"
        attributes = {
            "db.system.name": "clickhouse",
            "db.operation.name": statements.kind(statement.sql),
            "db.query.text": " ".join(statement.sql.split())[:TEXT_CHARS_MAX],
        }
        if insert is not None:
            attributes["db.collection.name"] = statements.table_of(insert)
        if statement.database:
            attributes["db.namespace"] = statement.database
        with self.tracer.span(name, "client", attributes, parent=parent, remote=remote) as span:
            try:
                answer = await self._execute(statement, caller)
            except ClickHouseError as error:
                span.attributes["db.response.status_code"] = str(error.code)
                raise
            if answer.written_rows is not None:
                span.attributes["edgesim.clickhouse.written_rows"] = answer.written_rows
            return answer

    async def _execute(self, statement: Statement, caller: str) -> QueryResult:
        # Released before the rows are read: a Worker may hold many responses without reading them.
        async with self._shares.setdefault(caller, anyio.Semaphore(CALLER_MAX)):
            return await self._driver.execute(statement)


async def _statement(request: HttpRequest, parameters: dict[str, str]) -> Statement:
    encoding = _encoding(request)
    if not parameters.get("query_id", "").isprintable():
        problem = "query_id has a character that is not printable"
        raise ClickHouseError(statements.BAD_ARGUMENTS, problem)
    wanted = request.header("x-clickhouse-format") or parameters.get("default_format")
    settings = {name: value for name, value in parameters.items() if name not in _OWN}
    if request.method == "GET":
        settings["readonly"] = "2"  # as ClickHouse does: the database refuses changes
    statement = Statement(
        sql=parameters.get("query", ""),
        data=request.body,
        encoding=encoding,
        default_format=wanted or "TabSeparated",
        database=request.header("x-clickhouse-database") or parameters.get("database"),
        settings=settings,
        query_id=parameters.get("query_id"),
    )
    statement = await _cut(statement, wanted)
    if statements.writes_a_file(statement.sql):
        raise ClickHouseError(INTO_OUTFILE_NOT_ALLOWED, "INTO OUTFILE is not allowed")
    if request.method == "GET" and not statements.reads_only(statement.sql):
        raise ClickHouseError(READONLY, _READONLY)
    return statement


async def _cut(statement: Statement, insert_format: str | None) -> Statement:
    """Separate SQL from data, at any boundary within ``sql`` or ``data``."""
    insert = statements.as_insert(statement.sql)
    if insert is None or statement.sql[insert.data_at :].strip():
        insert = await _read_sql(statement)
    if insert is not None:
        # An INSERT without a format uses the request's, else Values.
        statement.sql = f"{insert.head}\nFORMAT {insert.format or insert_format or 'Values'}"
    return statement


async def _read_sql(statement: Statement) -> statements.Insert | None:
    """Read the rest of the statement from the body; what follows an INSERT is its data."""
    before = f"{statement.sql}\n".encode() if statement.sql else b""
    body = iterate(statement.data)
    if statement.encoding:
        body, statement.encoding = gunzip(body), None
    head = before
    async for chunk in body:
        head += chunk
        if len(head) > MAX_QUERY_BYTES:
            break
    # Latin-1 decodes each byte to one character, so positions in the text are positions in bytes.
    insert = statements.as_insert(head[:MAX_QUERY_BYTES].decode("latin-1"))
    if insert is not None:
        statement.data = Stream(_chain(head[insert.data_at :], body))
        return statements.as_insert(_utf8(head[: insert.data_at]))
    if len(head) > MAX_QUERY_BYTES:
        raise ClickHouseError(
            statements.SYNTAX_ERROR, f"Syntax error: Max query size exceeded ({MAX_QUERY_BYTES})"
        )
    statement.sql, statement.data = statements.single(_utf8(head)), b""
    return None


def _wants_gzip(request: HttpRequest, parameters: dict[str, str]) -> bool:
    """Return True if the client accepts gzip and enables it, as ClickHouse requires."""
    if parameters.get("enable_http_compression", "0") not in {"1", "true"}:
        return False
    accepted = (request.header("accept-encoding") or "").replace(" ", "").split(",")
    return any(each.partition(";")[0] == "gzip" for each in accepted)


async def _packed(plain: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Compress a response with gzip; closing this generator closes the response."""
    try:
        async for chunk in gzip(plain):
            yield chunk
    finally:
        await Stream(plain).aclose()


def _encoding(request: HttpRequest) -> str | None:
    encoding = request.header("content-encoding")
    if encoding in {None, "", "identity"}:
        return None
    if encoding != "gzip":
        raise ClickHouseError(NOT_IMPLEMENTED, f"Content-Encoding {encoding!r}: only gzip is read")
    return "gzip"


def _utf8(sql: bytes) -> str:
    try:
        return sql.decode()
    except UnicodeDecodeError as error:
        raise ClickHouseError(
            statements.SYNTAX_ERROR, f"Syntax error: the statement is not UTF-8: {error}"
        ) from error


async def _chain(head: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if head:
        yield head
    async for chunk in rest:
        yield chunk


async def _exhaust(body: AsyncIterator[bytes]) -> None:
    async for _ in body:
        pass


def _error(error: ClickHouseError) -> HttpResponse:
    text = f"Code: {error.code}. DB::Exception: {error.message}\n"
    headers = [("content-type", _TEXT), ("x-clickhouse-exception-code", str(error.code))]
    return HttpResponse(http_status(error.code), headers, text.encode())
