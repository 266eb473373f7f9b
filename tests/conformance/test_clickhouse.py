"""The gateway over every driver: the embedded engine, and a real server over both protocols.

The real server is Debian's 18.16: its protocols are real but its SQL is old, so the tables are
simple.
"""

import gzip
import importlib
import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import anyio
import pytest

from edgesim import drivers
from edgesim.clickhouse.driver import Statement
from edgesim.clickhouse.gateway import Gateway
from edgesim.errors import ClickHouseError, ConfigError, RunError
from edgesim.model import HttpRequest, Stream, read_all
from tests.driver_urls import url_of_installed
from tests.servers_clickhouse import clickhouse_server

pytestmark = pytest.mark.anyio

SERVER = ["clickhouse", "clickhouse+http"]  # two more schemes are these over TLS
INSTALLED = drivers.known("clickhouse")[len(drivers.BUILT_IN["clickhouse"]) :]
ROWS = "".join(json.dumps({"n": n, "name": f"row {n}"}) + "\n" for n in range(1_000)).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    with clickhouse_server(tmp_path_factory.mktemp("clickhouse")) as ports:
        yield ports


class Client:
    """A client of ClickHouse's HTTP interface."""

    def __init__(self, scheme: str, database: Any) -> None:
        self.scheme = scheme
        self.database = database
        self.gateway = Gateway(database)
        self.headers: dict[str, str] = {}

    async def ask(
        self,
        query: str = "",
        body: Any = b"",
        *,
        method: str = "POST",
        gz: bool = False,
        **more: str,
    ) -> tuple[int, str]:
        """Run a statement and return its status and text."""
        parameters = {**({"query": query} if query else {}), **more}
        headers = [("Content-Encoding", "gzip")] if gz else []
        url = f"http://clickhouse/?{urlencode(parameters)}"
        answer = await self.gateway.fetch(HttpRequest(method, url, headers, body))
        self.headers = dict(answer.headers)
        return answer.status, (await read_all(answer.body)).decode()

    async def table(self) -> None:
        for sql in (
            "DROP TABLE IF EXISTS t",
            "CREATE TABLE t (n UInt32, name String) ENGINE = MergeTree ORDER BY n",
        ):
            status, text = await self.ask(sql)
            assert status == 200, text

    async def count(self) -> int:
        return int((await self.ask("SELECT count() FROM t"))[1])


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One event loop for all tests: the shared engine's process belongs to it."""
    return "asyncio"


@pytest.fixture(scope="module")
async def engine(
    anyio_backend: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Any]:
    """An embedded engine for the tests that leave it and its folder alone, like the server."""
    url = f"chdb:{tmp_path_factory.mktemp('chdb')}/clickhouse"
    async with drivers.opener("clickhouse", url)(url) as database:
        yield database


def make(schemes: list[str]) -> Any:
    @pytest.fixture(params=schemes)
    async def client(
        request: pytest.FixtureRequest, tmp_path: Path, engine: Any
    ) -> AsyncIterator[Client]:
        if request.param == "chdb":
            yield Client(request.param, engine)
            return
        if request.param in INSTALLED:
            url = url_of_installed(request, request.param, tmp_path)
        else:
            http, tcp = request.getfixturevalue("server")
            url = f"{request.param}://127.0.0.1:{tcp if request.param == 'clickhouse' else http}"
        async with drivers.opener("clickhouse", url)(url) as database:
            yield Client(request.param, database)

    return client


client = make(["chdb", *SERVER, *INSTALLED])
parsing = make(["chdb", "clickhouse+http"])
embedded = make(["chdb"])
server_client = make(SERVER)


@pytest.fixture
async def alone(tmp_path: Path) -> AsyncIterator[Client]:
    """A client of an embedded engine that the test may kill, or open a second time."""
    url = f"chdb:{tmp_path}/clickhouse"
    async with drivers.opener("clickhouse", url)(url) as database:
        yield Client("chdb", database)


async def test_ping(client):
    """GET /ping and GET / respond Ok. without a statement."""
    for path in ("ping", ""):
        answer = await client.gateway.fetch(HttpRequest("GET", f"http://clickhouse/{path}"))
        assert (answer.status, await read_all(answer.body)) == (200, b"Ok.\n")


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ("TabSeparated", "1\ta\\tb\n"),
        ("TabSeparatedWithNames", "n\ts\n1\ta\\tb\n"),
        ("JSONEachRow", '{"n":1,"s":"a\\tb"}\n'),
        ("CSV", '1,"a\tb"\n'),
    ],
)
async def test_formats(client, wanted, text):
    """FORMAT in the statement sets the format, and the response names it."""
    sql = f"SELECT toUInt8(1) AS n, 'a\\tb' AS s FORMAT {wanted}"
    assert await client.ask(sql) == (200, text)
    assert client.headers["x-clickhouse-format"] == wanted


async def test_json_has_meta_and_rows(client):
    """JSON has names, types and the number of rows."""
    status, text = await client.ask("SELECT toUInt8(1) AS n", default_format="JSON")
    answer = json.loads(text)
    assert status == 200
    assert answer["meta"] == [{"name": "n", "type": "UInt8"}]
    assert (answer["data"], answer["rows"]) == ([{"n": 1}], 1)


async def test_statement_in_the_body(client):
    """Without a query parameter the body is the statement; otherwise it continues the statement."""
    assert await client.ask(body=b"SELECT 1 + 1") == (200, "2\n")
    assert await client.ask("SELECT", b" 3") == (200, "3\n")
    assert await client.ask(body=gzip.compress(b"SELECT 4"), gz=True) == (200, "4\n")


@pytest.mark.parametrize(
    ("sql", "status", "code"),
    [
        ("SELEKT 1", 400, "62"),
        ("SELECT * FROM missing_table", 404, "60"),
        ("SELECT missing_function(1)", 404, "46"),
        ("SELECT * FROM missing_database.t", 404, "81"),
    ],
)
async def test_errors_are_clickhouses_own(client, sql, status, code):
    """HTTP status, code header and text are those of ClickHouse."""
    got, text = await client.ask(sql)
    assert (got, client.headers["x-clickhouse-exception-code"]) == (status, code)
    assert text.startswith(f"Code: {code}")
    assert "Stack trace" not in text


async def test_get_only_reads(client):
    """GET selects, and refuses every change."""
    await client.table()
    assert await client.ask("SELECT 1", method="GET") == (200, "1\n")
    status, text = await client.ask("DROP TABLE t", method="GET")
    assert (status, text[:9]) == (500, "Code: 164")
    assert await client.count() == 0


async def test_settings_are_parameters(client):
    """A parameter that the interface does not define is a setting; an unknown one is an error."""
    query = "SELECT count() FROM (SELECT number FROM system.numbers LIMIT 100)"
    status, text = await client.ask(query, max_rows_to_read="10", max_block_size="5")
    assert (status, text[:9]) == (500, "Code: 158")
    status, text = await client.ask("SELECT 1", no_such_setting="1")
    assert (status, text[:9]) == (404, "Code: 115")


@pytest.mark.parametrize("name", ["a b", "x=1; DROP TABLE t; --", ""])
async def test_a_setting_cannot_break_out(embedded, name):
    """An invalid setting name is refused before it reaches the engine."""
    await embedded.table()
    status, text = await embedded.ask("SELECT 1", **{name: "1"})
    assert (status, text[:9]) == (404, "Code: 115")
    assert await embedded.count() == 0
    status, _ = await embedded.ask("SELECT 1", max_threads="1', max_rows_to_read = '0")
    assert status != 200


async def test_gzip_insert(client):
    """Insert rows as gzip NDJSON with the statement in the parameter."""
    await client.table()
    done = await client.ask("INSERT INTO t FORMAT JSONEachRow", gzip.compress(ROWS), gz=True)
    assert done == (200, "")
    assert await client.ask("SELECT count(), sum(n), max(name) FROM t") == (
        200,
        "1000\t499500\trow 999\n",
    )


async def test_insert_with_data_in_the_statement(parsing):
    """VALUES, and rows after FORMAT in the body, work like data that is sent apart."""
    await parsing.table()
    assert (await parsing.ask("INSERT INTO t VALUES (1, 'a;b')"))[0] == 200
    inline = b'INSERT INTO t FORMAT JSONEachRow\n{"n": 2, "name": "FORMAT x"}'
    assert (await parsing.ask(body=inline))[0] == 200
    assert (await parsing.ask("SELECT name FROM t ORDER BY n"))[1] == "a;b\nFORMAT x\n"


async def test_streamed_insert(client):
    """A body of unknown length is passed on in chunks of any size, also of several gzip members."""
    await client.table()
    packed = gzip.compress(ROWS[:5_000]) + gzip.compress(ROWS[5_000:])
    if client.scheme == "clickhouse+http":
        packed = gzip.compress(ROWS)  # the old server reads only one member

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(packed), 777):
            yield packed[start : start + 777]

    sql = "INSERT INTO t FORMAT JSONEachRow"
    assert await client.ask(sql, Stream(chunks()), gz=True) == (200, "")
    assert await client.count() == 1_000


async def test_a_bad_row_leaves_nothing(client):
    """An insert with one bad row is refused whole, with ClickHouse's code."""
    await client.table()
    bad = ROWS + b'{"n": "many", "name": "x"}\n'
    status, text = await client.ask("INSERT INTO t FORMAT JSONEachRow", gzip.compress(bad), gz=True)
    assert status in {400, 500}
    assert text.startswith("Code: ")
    assert await client.count() == 0


async def test_data_that_is_no_gzip(embedded):
    """Broken compression is an error, and nothing is inserted."""
    await embedded.table()
    status, _ = await embedded.ask("INSERT INTO t FORMAT JSONEachRow", b"plain", gz=True)
    assert status >= 400
    assert await embedded.count() == 0


INPUT = (
    "INSERT INTO t (n, name) SELECT n * 2 AS n, upper(name) FROM input('n UInt32, name String') "
    "FORMAT JSONEachRow"
)


async def test_insert_through_input(embedded):
    """input() transforms rows on their way in, from gzip and from plain data."""
    await embedded.table()
    assert (await embedded.ask(INPUT, gzip.compress(ROWS), gz=True))[0] == 200
    assert (await embedded.ask(INPUT, ROWS))[0] == 200
    assert (await embedded.ask("SELECT count(), max(n), min(name) FROM t"))[
        1
    ] == "2000\t1998\tROW 0\n"


@pytest.mark.parametrize("sql", ["INSERT INTO t FORMAT JSONEachRow", INPUT])
async def test_a_token_makes_an_insert_idempotent(alone, sql):
    """The same token twice is one insert, another token is another one; also after a restart."""
    await alone.table()
    await alone.ask("ALTER TABLE t MODIFY SETTING non_replicated_deduplication_window = 100")
    for token in ("a", "a", "b", "a"):
        status, text = await alone.ask(sql, ROWS, insert_deduplication_token=token)
        assert status == 200, text
    assert await alone.count() == 2_000
    await alone.database.close()
    alone.database._process = alone.database._control = None
    await alone.ask(sql, ROWS, insert_deduplication_token="b")
    assert await alone.count() == 2_000


async def test_the_engine_killed(alone):
    """SIGKILL of the engine: acknowledged rows are there, and further statements run."""
    await alone.table()
    await alone.ask("INSERT INTO t FORMAT JSONEachRow", ROWS)
    alone.database._process.kill()
    await alone.database._process.wait()
    assert await alone.count() == 1_000


async def test_the_engine_killed_while_it_reads(alone):
    """A read-only statement is repeated on the next engine, invisibly to the client."""
    await alone.table()
    await alone.ask("INSERT INTO t FORMAT JSONEachRow", ROWS)

    async def kill() -> None:
        await anyio.wait_all_tasks_blocked()
        alone.database._process.kill()

    async with anyio.create_task_group() as group:
        group.start_soon(kill)
        assert await alone.ask("SELECT count() FROM t WHERE sleep(1) = 0") == (200, "1000\n")


native = make(["clickhouse"])


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES (1, 'a')",
        "INSERT INTO t FORMAT CSV",
        "INSERT INTO t SELECT * FROM input('n UInt32, name String') FORMAT JSONEachRow",
        "INSERT INTO FUNCTION null('n UInt32') FORMAT JSONEachRow",
    ],
)
async def test_what_native_cannot_insert_is_refused_with_the_cure(native, sql):
    """Inserts that need the server's own parser are refused; the error names the alternative."""
    await native.table()
    status, text = await native.ask(sql, b"" if "VALUES" in sql else ROWS)
    assert status == 501
    assert "clickhouse+http://" in text
    assert (await native.ask("INSERT INTO t SELECT 1, 'a'"))[0] == 200
    assert await native.count() == 1


COLUMNS = {
    "small UInt8": ("7", "7"),
    "large UInt64": ('"18446744073709551615"', "18446744073709551615"),
    "signed Nullable(Int32)": ("null", "\\N"),
    "real Float64": ("0.1", "0.1"),
    "text String": ('"tab\\t \u00e9"', "tab\\t \u00e9"),
    "fixed FixedString(2)": ('"ab"', "ab"),
    "day Date": ('"2020-01-02"', "2020-01-02"),
    "time DateTime('UTC')": ('"2020-01-02 03:04:05"', "2020-01-02 03:04:05"),
    "stamp DateTime('UTC')": ("1577934245", "2020-01-02 03:04:05"),
    "iso DateTime('UTC')": ('"2020-01-02T04:04:05.5+01:00"', "2020-01-02 03:04:05"),
    "choice Enum8('a' = 1, 'b' = 2)": ('"b"', "b"),
    "money Decimal(9, 2)": ("1.25", "1.25"),
    "id UUID": (
        '"61f0c404-5cb3-11e7-907b-a6006ad3dba0"',
        "61f0c404-5cb3-11e7-907b-a6006ad3dba0",
    ),
    "list Array(Nullable(UInt8))": ("[1, null]", "[1,NULL]"),
    "nested Array(Array(String))": ('[["a"], []]', "[['a'],[]]"),
}


async def test_native_inserts_take_the_types_of_the_columns(native):
    """Each type is parsed from JSON; a missing field becomes the type's zero, or NULL."""
    await native.ask("DROP TABLE IF EXISTS types")
    names = [each.split(" ", 1)[0] for each in COLUMNS]
    sql = f"CREATE TABLE types (row UInt8, {', '.join(COLUMNS)}) ENGINE = Memory"
    assert (await native.ask(sql))[0] == 200
    values = ", ".join(
        f'"{name}": {value}' for name, (value, _) in zip(names, COLUMNS.values(), strict=True)
    )
    rows = f'{{"row": 1, {values}}}\n\n{{"row": 2, "choice": "a"}}\n'
    assert await native.ask("INSERT INTO types FORMAT JSONEachRow", rows.encode()) == (200, "")
    assert native.headers["x-clickhouse-summary"] == '{"written_rows":"2"}'
    found = (await native.ask("SELECT * FROM types ORDER BY row"))[1].splitlines()
    assert found[0].split("\t")[1:] == [text for _, text in COLUMNS.values()]
    assert found[1].split("\t")[1:6] == ["0", "0", "\\N", "0", ""]


async def test_native_inserts_leave_defaults_to_the_server(native):
    """A DEFAULT that no row sets is left to the server; a mix of both is refused."""
    await native.ask("DROP TABLE IF EXISTS d")
    await native.ask("CREATE TABLE d (n UInt8, twice UInt16 DEFAULT n * 2) ENGINE = Memory")
    insert = "INSERT INTO d FORMAT JSONEachRow"
    assert (await native.ask(insert, b'{"n": 2}\n{"n": 3}'))[0] == 200
    assert (await native.ask(insert, b'{"n": 4, "twice": 1}'))[0] == 200
    for mixed in (b'{"n": 5, "twice": 1}\n{"n": 6}', b'{"n": 6}\n{"n": 5, "twice": 1}'):
        status, text = await native.ask(insert, mixed)
        assert status == 501
        assert "twice" in text
    assert (await native.ask("SELECT * FROM d ORDER BY n"))[1] == "2\t4\n3\t6\n4\t1\n"


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (b'{"n": -1}', "n"),
        (b'{"n": 5000000000}', "n"),
        (b'{"n": "x"}', ".n"),
        (b'{"n": null}', ".n"),
        (b'{"n": 1, "other": 1}', "other"),
        (b'{"n": 1', "truncated"),
        (b'{"n": 1, "name": "\xff"}', "utf-8"),
    ],
)
async def test_native_inserts_say_what_is_wrong(native, row, told):
    """A row that does not fit is a client error, and no row of the insert is stored."""
    await native.table()
    status, text = await native.ask("INSERT INTO t FORMAT JSONEachRow", ROWS + row)
    assert status == 400
    assert told in text.lower()  # msgspec's own words, which differ between its versions
    assert await native.count() == 0
    skipping = {"input_format_skip_unknown_fields": "1"}
    assert (await native.ask("INSERT INTO t FORMAT JSONEachRow", b'{"x": 1}', **skipping))[0] == 200


async def test_a_token_that_the_server_does_not_know_is_refused(native):
    """The old protocol would ignore the token silently, and a retry would insert twice."""
    await native.table()
    sql = "INSERT INTO t FORMAT JSONEachRow"
    status, text = await native.ask(sql, ROWS, insert_deduplication_token="a")
    assert (status, text[:9]) == (404, "Code: 115")
    assert "insert_deduplication_token" in text
    assert await native.count() == 0


async def test_a_bad_row_far_behind_leaves_nothing(server_client):
    """The server collects an insert of many blocks and writes it as one."""
    await server_client.table()
    rows = b'{"n": 1, "name": "x"}\n' * 1_200_000 + b'{"n": "many", "name": "x"}\n'
    sql = "INSERT INTO t FORMAT JSONEachRow"
    status, _ = await server_client.ask(sql, gzip.compress(rows, 1), gz=True)
    assert status >= 400
    assert await server_client.count() == 0


async def test_an_insert_given_up_between_two_blocks_leaves_nothing(native):
    """The server stores no row of an insert whose data breaks off after a whole block."""
    await native.table()
    running = "SELECT count() FROM system.processes WHERE query LIKE 'INSERT INTO t %'"

    async def rows(received: int) -> AsyncIterator[bytes]:
        for _ in range(received):
            yield b'{"n": 1, "name": "x"}\n' * 250_000
        progress = running.replace("count()", "read_rows")
        with anyio.move_on_after(1):  # until the server has read all that was sent
            while int((await native.ask(progress))[1] or 0) < received * 200_000:  # noqa: ASYNC110 (of another process)
                await anyio.sleep(0.01)
        raise OSError("the client is gone")

    for received in (1, 2):
        statement = Statement("INSERT INTO t FORMAT JSONEachRow", Stream(rows(received)))
        with pytest.raises(OSError, match="the client is gone"):
            await native.database.execute(statement)
        with anyio.fail_after(60):
            while (await native.ask(running))[1] != "0\n":  # noqa: ASYNC110 (of another process)
                await anyio.sleep(0.01)
        assert await native.count() == 0


@pytest.mark.parametrize("scheme", SERVER)
async def test_a_server_out_of_reach(scheme):
    """An unreachable server is one clear line and 503."""
    url = f"{scheme}://127.0.0.1:1/db"
    async with drivers.opener("clickhouse", url)(url, "u", "secret") as driver:
        status, text = await Client(scheme, driver).ask("SELECT 1")
    assert status == 503
    assert "out of reach" in text
    assert "secret" not in text


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("//u:secret@127.0.0.1/db", "EDGESIM_CLICKHOUSE_PASSWORD"),
        ("//127.0.0.1/?timeuot=1", "timeuot"),
        ("///db", "names no host"),
    ],
)
@pytest.mark.parametrize("scheme", SERVER)
async def test_a_url_that_is_none(scheme, url, told):
    """Passwords in URLs and unknown options are refused; the error does not show the password."""
    open_clickhouse = drivers.opener("clickhouse", f"{scheme}:{url}")
    with pytest.raises(ConfigError, match=told) as caught:
        async with open_clickhouse(f"{scheme}:{url}"):
            pass
    assert "secret" not in str(caught.value)


async def test_schema_is_applied_before_the_first_statement(alone):
    """Each statement of the schema runs once; a wrong one fails each request until it is fixed."""
    schema = "CREATE TABLE s (a UInt8) ENGINE = Log; -- a; comment\nINSERT INTO s VALUES (1), (2);"
    alone.gateway = Gateway(alone.database, schema)
    for _ in range(2):
        assert await alone.ask("SELECT count() FROM s") == (200, "2\n")
    alone.gateway = Gateway(alone.database, "CREATE TABEL x")
    for _ in range(2):
        status, text = await alone.ask("SELECT 1")
        assert status == 400
        assert "in the schema, at: CREATE TABEL x" in text


@pytest.mark.parametrize("sql", ["INSERT INTO t FORMAT JSONEachRow", INPUT])
async def test_data_that_breaks_off_leaves_nothing(client, sql):
    """Part of an object is never inserted under the whole one's token; a retry inserts it all."""
    if client.scheme != "chdb" and sql is INPUT:
        pytest.skip("the old server has no input()")
    await client.table()
    token = {}
    if client.scheme == "chdb":
        window = "ALTER TABLE t MODIFY SETTING non_replicated_deduplication_window = 100"
        assert (await client.ask(window))[0] == 200
        token = {"insert_deduplication_token": "object"}

    async def broken() -> AsyncIterator[bytes]:
        yield ROWS[: ROWS.index(b'{"n": 500')]
        raise OSError("the source broke")

    with pytest.raises(OSError, match="the source broke"):
        await client.ask(sql, Stream(broken()), **token)
    assert (await client.ask(sql, ROWS, **token))[0] == 200
    assert await client.count() == 1_000


async def test_gzip_that_ends_early_leaves_nothing(client):
    """The insert fails as a whole, although some of its rows could be decompressed."""
    await client.table()
    cut = gzip.compress(ROWS)[:-8]
    status, _ = await client.ask("INSERT INTO t FORMAT JSONEachRow", cut, gz=True)
    assert status >= 400
    assert await client.count() == 0


@pytest.mark.parametrize("sql", ["INSERT INTO t FORMAT JSONEachRow", INPUT])
async def test_a_bad_row_leaves_nothing_of_millions(embedded, sql):
    """All or nothing, also where the engine would split an insert into several blocks."""
    await embedded.table()
    rows = b'{"n": 1, "name": "x"}\n' * 4_000_000
    packed = gzip.compress(rows, 1) + gzip.compress(b'{"n": "many", "name": "x"}\n')
    status, text = await embedded.ask(sql, packed, gz=True)
    assert (status, text[:8]) == (400, "Code: 27")
    assert await embedded.count() == 0


async def test_an_answer_that_breaks_off_is_an_error(alone):
    """A reader never takes a partial reply for a complete one."""
    url = f"http://clickhouse/?{urlencode({'query': 'SELECT number FROM numbers(20000000)'})}"
    answer = await alone.gateway.fetch(HttpRequest("POST", url))
    await answer.body.read()
    alone.database._process.kill()
    with pytest.raises(RunError, match="ended during a statement"):
        await read_all(answer.body)


async def test_an_answer_closed_unread(client):
    """Closing a reply ends its statement, any number of times."""
    sql = "SELECT number FROM system.numbers LIMIT 300000"
    for _ in range(10):
        url = f"http://clickhouse/?{urlencode({'query': sql})}"
        answer = await client.gateway.fetch(HttpRequest("POST", url))
        await answer.body.aclose()
    with anyio.fail_after(60):
        assert await client.ask("SELECT 1") == (200, "1\n")


async def test_an_error_after_the_first_rows(client):
    """The error has its status or breaks the reply off; it never looks like a row."""
    sql = (
        "SELECT number, throwIf(number = 400000) FROM "
        "(SELECT number FROM system.numbers LIMIT 500000) SETTINGS max_threads = 1"
    )
    try:
        status, text = await client.ask(sql)
    except ClickHouseError as error:
        status, text = 500, f"Code: {error.code}"
    assert (status, text[:9]) == (500, "Code: 395")


async def test_statements_do_not_wait_for_each_other(embedded):
    """A query is answered while an upload waits for data, and both succeed."""
    await embedded.table()
    go_on = anyio.Event()
    half = ROWS.index(b'{"n": 500')

    async def slow() -> AsyncIterator[bytes]:
        yield ROWS[:half]
        await go_on.wait()
        yield ROWS[half:]

    async def upload() -> None:
        done = await embedded.ask("INSERT INTO t FORMAT JSONEachRow", Stream(slow()))
        assert done == (200, "")

    async with anyio.create_task_group() as group:
        group.start_soon(upload)
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(60):
            assert await embedded.ask("SELECT 1") == (200, "1\n")
        go_on.set()
    assert await embedded.count() == 1_000


async def test_a_statement_leaves_no_state(embedded):
    """SET and USE end with their request."""
    assert (await embedded.ask("SET readonly = 1"))[0] == 200
    await embedded.table()
    assert (await embedded.ask("USE system"))[0] == 200
    assert await embedded.count() == 0


async def test_one_statement_a_request(client):
    """Several statements are refused whole, as in ClickHouse; GET can only read."""
    await client.table()
    status, text = await client.ask("SELECT 1; DROP TABLE t", method="GET")
    assert (status, text[:8]) == (400, "Code: 62")
    for sql in ("INSERT INTO t SELECT 1, 'a'", "WITH 1 AS x INSERT INTO t SELECT x, 'a'"):
        assert (await client.ask(sql, method="GET"))[0] >= 400
    assert await client.count() == 0


async def test_the_database_of_a_request(client):
    """The database parameter and the header select the database of unqualified tables."""
    assert await client.ask("SELECT currentDatabase()", database="system") == (200, "system\n")
    status, text = await client.ask("SELECT 1", database="no_such")
    assert (status, text[:8]) == (404, "Code: 81")


async def test_a_folder_of_any_name(tmp_path):
    """Glob characters in the path of the database are taken literally."""
    chdb = importlib.import_module("edgesim.clickhouse.chdb.driver")
    async with chdb.open_clickhouse(f"chdb:{tmp_path}/a{{b}}*[c]'/db") as database:
        embedded = Client("chdb", database)
        await embedded.table()
        assert (await embedded.ask(INPUT, ROWS))[0] == 200
        assert await embedded.count() == 1_000


async def test_a_database_that_is_open_elsewhere(alone, monkeypatch):
    """The error names the folder and the cure."""
    assert await alone.ask("SELECT 1") == (200, "1\n")
    chdb = importlib.import_module("edgesim.clickhouse.chdb.driver")
    path = alone.database._path
    async with chdb.open_clickhouse(f"chdb:{path}") as database:
        status, text = await Client("chdb", database).ask("SELECT 1")
    assert status == 503
    assert f"another process has the ClickHouse database {path} open" in text


async def test_without_the_engine(tmp_path, monkeypatch):
    """A missing package is an error that names the cure."""
    monkeypatch.setitem(sys.modules, "chdb", None)
    chdb = importlib.import_module("edgesim.clickhouse.chdb.driver")
    async with chdb.open_clickhouse(f"chdb:{tmp_path}/db") as database:
        status, text = await Client("chdb", database).ask("SELECT 1")
    assert status == 503
    assert "pip install --no-deps 'chdb-core>=" in text


async def test_data_of_any_bytes_after_the_sql(parsing):
    """Data after an INSERT in the body is passed on unchanged, in any encoding."""
    await parsing.table()
    assert (await parsing.ask(body=b'INSERT INTO t FORMAT CSV\n7,"caf\xe9 \x27; --"\n'))[0] == 200
    assert await parsing.ask("SELECT hex(name) FROM t") == (200, "636166E920273B202D2D\n")


async def test_values_are_written_by_their_type(client):
    """The three backends write the same text; a column has one format in all its rows."""
    sql = (
        "SELECT toInt64(5) AS a, toFloat32(0.1) AS b, 0/0 AS c, "
        "CAST(NULL AS Nullable(String)) AS d, "
        "['it\\'s', 'b'] AS e, toDateTime('2020-01-02 03:04:05') AS f, "
        "'\\t\\'\"' AS g, toFloat64(1) AS h"
    )
    quote = {"output_format_json_quote_64bit_integers": "0"}
    texts = {
        "TabSeparated": "5\t0.1\tnan\t\\N\t['it\\'s','b']\t2020-01-02 03:04:05\t\\t\\'\"\t1\n",
        "CSV": '5,0.1,nan,\\N,"[\'it\\\'s\',\'b\']","2020-01-02 03:04:05","\t\'""",1\n',
        "JSONEachRow": '{"a":5,"b":0.1,"c":null,"d":null,"e":["it\'s","b"],'
        '"f":"2020-01-02 03:04:05","g":"\\t\'\\"","h":1}\n',
    }
    for name, text in texts.items():
        assert await client.ask(f"{sql} FORMAT {name}", **quote) == (200, text)


PLATFORM = """
import sys, anyio
from edgesim.clickhouse.chdb.driver import open_clickhouse
from edgesim.clickhouse.driver import Statement
from edgesim.model import Stream

async def rows(database):
    yield b'{"n": 1, "name": "half"}\\n'
    print(database._process.pid, flush=True)
    await anyio.sleep_forever()

async def main():
    async with open_clickhouse(sys.argv[1]) as database:
        await (await database.execute(Statement("SELECT 1"))).body.aclose()
        await database.execute(
            Statement("INSERT INTO t FORMAT JSONEachRow", data=Stream(rows(database)))
        )

anyio.run(main)
"""


async def test_the_platform_killed(alone):
    """SIGKILL of the platform during an upload: no engine stays, and no row of the upload."""
    await alone.table()
    await alone.database.close()
    url = f"chdb:{alone.database._path}"
    async with await anyio.open_process([sys.executable, "-c", PLATFORM, url]) as platform:
        assert platform.stdout is not None
        engine = int(await platform.stdout.receive())
        platform.kill()
    with anyio.fail_after(60):
        while _alive(engine):  # noqa: ASYNC110 (the exit of another process can only be polled)
            await anyio.sleep(0.01)
    assert await alone.count() == 0


def _alive(process_id: int) -> bool:
    try:
        status = Path(f"/proc/{process_id}/status").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return "State:\tZ" not in status


async def test_a_server_runs_one_statement_of_an_id(server_client):
    """The query id reaches the server, which refuses it again while the first statement runs."""
    answers: list[tuple[int, str]] = []
    # The server may still have a statement of the other protocol's test.
    name = f"the-same-{server_client.scheme}"

    async def ask() -> None:
        answers.append(await server_client.ask("SELECT sleep(1)", query_id=name))

    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(ask)
    done, refused = sorted(answers)
    assert done == (200, "0\n")
    assert "Code: 216" in refused[1]
