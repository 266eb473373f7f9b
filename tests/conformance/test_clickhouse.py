"""The gateway over every driver: the embedded engine, and a real server by both its protocols.

The real server is Debian's 18.16: its protocols are real, its SQL is old, so the tables are plain.
"""

import gzip
import importlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from edgesim.clickhouse.driver import DRIVERS
from edgesim.clickhouse.gateway import Gateway
from edgesim.model import HttpRequest, Stream, read_all
from tests.servers_clickhouse import clickhouse_server

pytestmark = pytest.mark.anyio

SERVER = ["clickhouse", "clickhouse+http"]
ROWS = "".join(json.dumps({"n": n, "name": f"row {n}"}) + "\n" for n in range(1_000)).encode()


def test_every_driver_is_in_this_suite():
    """A driver without a row here does not merge (https is http with TLS before it)."""
    assert set(DRIVERS) == {"chdb", *SERVER, "clickhouse+https"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    with clickhouse_server(tmp_path_factory.mktemp("clickhouse")) as ports:
        yield ports


class Client:
    """Anybody who speaks ClickHouse's HTTP interface."""

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
        """Status and text."""
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


def make(schemes: list[str]) -> Any:
    @pytest.fixture(params=schemes)
    async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Client]:
        module = importlib.import_module(DRIVERS[request.param].partition(":")[0])
        if request.param == "chdb":
            url = f"chdb:{tmp_path}/clickhouse"
        else:
            http, tcp = request.getfixturevalue("server")
            url = f"{request.param}://127.0.0.1:{tcp if request.param == 'clickhouse' else http}"
        async with module.open_clickhouse(url, None, None) as database:
            yield Client(request.param, database)

    return client


client = make(["chdb", *SERVER])
inserting = make(["chdb", "clickhouse+http"])
embedded = make(["chdb"])


async def test_ping(client):
    """GET /ping and GET / answer Ok. without a statement."""
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
    """FORMAT in the statement decides, the answer says which it was."""
    sql = f"SELECT toUInt8(1) AS n, 'a\\tb' AS s FORMAT {wanted}"
    assert await client.ask(sql) == (200, text)
    assert client.headers["x-clickhouse-format"] == wanted


async def test_json_has_meta_and_rows(client):
    """JSON carries names, types and the number of rows."""
    status, text = await client.ask("SELECT toUInt8(1) AS n", default_format="JSON")
    answer = json.loads(text)
    assert status == 200
    assert answer["meta"] == [{"name": "n", "type": "UInt8"}]
    assert (answer["data"], answer["rows"]) == ([{"n": 1}], 1)


async def test_statement_in_the_body(client):
    """Without a query parameter the body is the statement; with one it is its continuation."""
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
    """GET selects, and refuses to change anything."""
    await client.table()
    assert await client.ask("SELECT 1", method="GET") == (200, "1\n")
    status, text = await client.ask("DROP TABLE t", method="GET")
    assert (status, text[:9]) == (500, "Code: 164")
    assert await client.count() == 0


async def test_settings_are_parameters(client):
    """A parameter that is not the interface's own is a setting; an unknown one is an error."""
    query = "SELECT count() FROM (SELECT number FROM system.numbers LIMIT 100)"
    status, text = await client.ask(query, max_rows_to_read="10", max_block_size="5")
    assert (status, text[:9]) == (500, "Code: 158")
    status, text = await client.ask("SELECT 1", no_such_setting="1")
    assert (status, text[:9]) == (404, "Code: 115")


@pytest.mark.parametrize("name", ["a b", "x=1; DROP TABLE t; --", ""])
async def test_a_setting_cannot_break_out(embedded, name):
    """What is not the name of a setting is refused before it reaches the engine."""
    await embedded.table()
    assert (await embedded.ask("SELECT 1", **{name: "1"}))[0] == 400
    assert await embedded.count() == 0
    status, _ = await embedded.ask("SELECT 1", max_threads="1', max_rows_to_read = '0")
    assert status != 200


async def test_gzip_insert(inserting):
    """Rows come as gzip NDJSON with the statement in the parameter."""
    await inserting.table()
    done = await inserting.ask("INSERT INTO t FORMAT JSONEachRow", gzip.compress(ROWS), gz=True)
    assert done == (200, "")
    assert await inserting.ask("SELECT count(), sum(n), max(name) FROM t") == (
        200,
        "1000\t499500\trow 999\n",
    )


async def test_insert_with_data_in_the_statement(inserting):
    """VALUES, and rows after FORMAT in the body, work as with any client."""
    await inserting.table()
    assert (await inserting.ask("INSERT INTO t VALUES (1, 'a;b')"))[0] == 200
    inline = b'INSERT INTO t FORMAT JSONEachRow\n{"n": 2, "name": "FORMAT x"}'
    assert (await inserting.ask(body=inline))[0] == 200
    assert (await inserting.ask("SELECT name FROM t ORDER BY n"))[1] == "a;b\nFORMAT x\n"


async def test_streamed_insert(inserting):
    """A body of unknown length is passed on in chunks, cut anywhere, in several gzip members."""
    await inserting.table()
    packed = gzip.compress(ROWS[:5_000]) + gzip.compress(ROWS[5_000:])
    if inserting.scheme != "chdb":
        packed = gzip.compress(ROWS)  # the old server reads one member only

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(packed), 777):
            yield packed[start : start + 777]

    sql = "INSERT INTO t FORMAT JSONEachRow"
    assert await inserting.ask(sql, Stream(chunks()), gz=True) == (200, "")
    assert await inserting.count() == 1_000


async def test_a_bad_row_leaves_nothing(inserting):
    """An insert with one bad row is refused whole, with ClickHouse's code."""
    await inserting.table()
    bad = ROWS + b'{"n": "many", "name": "x"}\n'
    status, text = await inserting.ask(
        "INSERT INTO t FORMAT JSONEachRow", gzip.compress(bad), gz=True
    )
    assert status in {400, 500}
    assert text.startswith("Code: ")
    assert await inserting.count() == 0


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
async def test_a_token_makes_an_insert_idempotent(embedded, sql):
    """The same token twice is one insert, another token is another; also after a restart."""
    await embedded.table()
    await embedded.ask("ALTER TABLE t MODIFY SETTING non_replicated_deduplication_window = 100")
    for token in ("a", "a", "b", "a"):
        status, text = await embedded.ask(sql, ROWS, insert_deduplication_token=token)
        assert status == 200, text
    assert await embedded.count() == 2_000
    await embedded.database.close()
    embedded.database._process = embedded.database._control = None
    await embedded.ask(sql, ROWS, insert_deduplication_token="b")
    assert await embedded.count() == 2_000


async def test_the_engine_killed(embedded):
    """Kill -9 of the engine: what was acknowledged is there, and statements go on."""
    await embedded.table()
    await embedded.ask("INSERT INTO t FORMAT JSONEachRow", ROWS)
    embedded.database._process.kill()
    await embedded.database._process.wait()
    assert await embedded.count() == 1_000


async def test_native_inserts_are_refused_with_the_cure(server):
    """Formatted data over the native protocol is refused, and the error names what works."""
    native = importlib.import_module("edgesim.clickhouse.native")
    async with native.open_clickhouse(f"clickhouse://127.0.0.1:{server[1]}", None, None) as driver:
        refused = Client("clickhouse", driver)
        await refused.table()
        status, text = await refused.ask("INSERT INTO t FORMAT JSONEachRow", ROWS)
        assert status == 501
        assert "clickhouse+http://" in text
        assert (await refused.ask("INSERT INTO t VALUES (1, 'a')"))[0] == 501
        assert (await refused.ask("INSERT INTO t SELECT 1, 'a'"))[0] == 200
        assert await refused.count() == 1


@pytest.mark.parametrize("scheme", SERVER)
async def test_a_server_out_of_reach(scheme):
    """No server at the port is one clear line and 503; the password is not in it."""
    module = importlib.import_module(DRIVERS[scheme].partition(":")[0])
    async with module.open_clickhouse(f"{scheme}://u:secret@127.0.0.1:1/db", None, None) as driver:
        status, text = await Client(scheme, driver).ask("SELECT 1")
    assert status == 503
    assert "out of reach" in text
    assert "secret" not in text


async def test_schema_is_applied_before_the_first_statement(embedded):
    """Every statement of the schema, once; a wrong one fails each request until it is right."""
    schema = "CREATE TABLE s (a UInt8) ENGINE = Log; -- a; comment\nINSERT INTO s VALUES (1), (2);"
    embedded.gateway = Gateway(embedded.database, schema)
    for _ in range(2):
        assert await embedded.ask("SELECT count() FROM s") == (200, "2\n")
    embedded.gateway = Gateway(embedded.database, "CREATE TABEL x")
    for _ in range(2):
        status, text = await embedded.ask("SELECT 1")
        assert status == 400
        assert "in the schema, at: CREATE TABEL x" in text
