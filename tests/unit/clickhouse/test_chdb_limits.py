"""One client's statements cannot stop the embedded engine or block other clients."""

import json
import os
import random

import anyio
import pytest

from edgesim.clickhouse.chdb.checks import check
from edgesim.clickhouse.chdb.driver import ChdbClickHouse
from edgesim.clickhouse.chdb.limits import StatementLimits
from edgesim.clickhouse.driver import Statement
from edgesim.clickhouse.gateway import CALLER_MAX, Gateway
from edgesim.clickhouse.statements import quoted
from edgesim.errors import ClickHouseError
from edgesim.model import HttpRequest, read_all

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        "not __import__('importlib.util').util.find_spec('chdb')", reason="chdb is not installed"
    ),
]
ENDLESS = "SELECT count() FROM numbers(100000000000000) WHERE NOT ignore(sipHash64(number))"
FROM = "(k UInt64, v UInt64) PRIMARY KEY k SOURCE"
LAYOUT = "LIFETIME(1) LAYOUT(FLAT())"
DENIED = 497
SYNTAX_ERROR = 62
SPACES = (
    "\t\n\v\f\r \x85\xa0\u180e\u2003\u200b\u200c\u200d\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
)
"""White space to the engine; Python's own differs by five of these."""


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
async def engine(anyio_backend, tmp_path_factory):
    path = tmp_path_factory.mktemp("engine") / "db"
    database = ChdbClickHouse(
        path, StatementLimits(max_execution_time=3, max_memory_usage=50_000_000)
    )
    yield database
    await database.close()


async def run(engine, sql, **settings):
    answer = await engine.execute(Statement(sql, settings=settings))
    return b"".join([chunk async for chunk in answer.body]).decode().strip()


async def running(engine):
    """The number of endless statements that the engine is running."""
    ours = "query LIKE '%sipHash64%' AND query NOT LIKE '%processes%'"
    return int(await run(engine, f"SELECT count() FROM system.processes WHERE {ours}"))


async def until_running(engine, count):
    with anyio.fail_after(60):
        while True:
            if await running(engine) == count:
                return
            await anyio.sleep(0.05)


@pytest.fixture
async def patient(tmp_path):
    """An engine whose statements may run for 10 minutes."""
    database = ChdbClickHouse(tmp_path / "db", StatementLimits(max_execution_time=600))
    yield database
    await database.close()


@pytest.mark.parametrize(
    "sql",
    [
        "SYSTEM SHUTDOWN",
        "system kill",
        "/* x */ SYSTEM STOP MERGES",
        "SYSTEM DROP MARK CACHE",
        "INSERT INTO FUNCTION file('x.csv', 'CSV', 'a String') SELECT 'x'",
        "INSERT INTO TABLE FUNCTION file('x.csv', 'CSV', 'a String') VALUES ('x')",
        "INSERT INTO FUNCTION `file`('x.csv', 'CSV', 'a String') SELECT 'x'",
        "CREATE TABLE f (a String) ENGINE = File(CSV, 'status')",
        "CREATE DATABASE s ENGINE=SQLite('/tmp/x', 'y')",
        # Comments and clauses that hide the rest of the statement from a simpler parser.
        "/*\nFORMAT x */ SYSTEM STOP MERGES",
        "// it's\nSYSTEM STOP MERGES",
        "# it's\nSYSTEM STOP MERGES",
        "CREATE TABLE p (a Int8) ENGINE = Memory PARALLEL WITH SYSTEM STOP MERGES",
        "KILL QUERY WHERE 1",
        "DROP DATABASE system",
        "DROP DATABASE IF EXISTS `default` SYNC",
        'DETACH DATABASE "default"',
        "RENAME DATABASE default TO x",
        "DROP TABLE system.one",
        "DETACH TABLE default.x, `system` . parts",
        "EXCHANGE TABLES default.x AND system.one",
        "TRUNCATE ALL TABLES FROM system",
        "CREATE OR REPLACE TABLE system.processes (a Int8) ENGINE = Memory",
        "CREATE DATABASE a ENGINE = Memory PARALLEL WITH DROP TABLE system.one",
        "CREATE MATERIALIZED VIEW v REFRESH EVERY 1 SECOND ENGINE = Memory AS SELECT 1",
        "ALTER TABLE v MODIFY REFRESH AFTER 1 SECOND",
        "CREATE RESOURCE query (QUERY)",
        "CREATE OR REPLACE WORKLOAD all SETTINGS max_concurrent_queries = 1",
        "DROP WORKLOAD IF EXISTS all",
        # A server on this port is the engine itself, which then loads without a limit.
        f"CREATE DICTIONARY d {FROM}(CLICKHOUSE(HOST '127.0.0.1' PORT 9000 TABLE 't')) {LAYOUT}",
        f"CREATE OR REPLACE DICTIONARY d {FROM} ( `executable` (COMMAND 'x')) {LAYOUT}",
        f"ATTACH DICTIONARY d {FROM}(FILE(PATH '/dev/zero' FORMAT 'TSV')) {LAYOUT}",
        "DROP TABLE `as`.x, system.one",
        "DROP TABLE `(`, system.one",
        *(f"{space}SYSTEM{space}STOP MERGES" for space in SPACES),
    ],
)
async def test_statements_that_would_harm_the_engine_are_refused(engine, sql):
    """A statement that would harm the engine fails with ACCESS_DENIED; the engine keeps running."""
    with pytest.raises(ClickHouseError) as failure:
        await run(engine, sql)
    assert failure.value.code == DENIED
    assert await run(engine, "SELECT 1") == "1"


async def test_harmless_statements_run(engine):
    """Statements that only resemble a refused one are run."""
    for sql in (
        "SYSTEM FLUSH LOGS",
        "CREATE DATABASE IF NOT EXISTS default",
        "CREATE TABLE logs (system String, default String) ENGINE = Memory",
        "ALTER TABLE logs ADD COLUMN refresh String",
        "CREATE TABLE workload (resource String, source String) ENGINE = Memory",
        "CREATE OR REPLACE TABLE resource (dictionary String) ENGINE = Memory",
        f"CREATE DICTIONARY nothing {FROM}(NULL()) {LAYOUT}",
        "DROP DICTIONARY nothing",
        "CREATE OR REPLACE VIEW tables AS SELECT name FROM system.tables",
        "CREATE TABLE l (a Int8) ENGINE = Log PARALLEL WITH CREATE TABLE r (a Int8) ENGINE = Log",
        "DROP TABLE l, r",
        "DROP VIEW tables",
        "DROP TABLE logs",
    ):
        assert await run(engine, sql) == ""


@pytest.mark.parametrize(
    "first", ["!", "&", "\\", "\x00", "\x01", "\x1c", "\x7f", "é", "\ufe0f", "'x'"]
)
async def test_what_begins_with_no_word_is_no_statement(engine, first):
    """A statement that the engine would skip without an error fails with SYNTAX_ERROR."""
    await run(engine, "CREATE TABLE IF NOT EXISTS begun (a Int8) ENGINE = Memory")
    for sql in (f"{first} INSERT INTO begun SELECT 1", f"{first}SYSTEM STOP MERGES"):
        with pytest.raises(ClickHouseError) as failure:
            await run(engine, sql)
        assert failure.value.code == SYNTAX_ERROR
    assert await run(engine, "SELECT count() FROM begun") == "0"


async def test_the_parser_has_bounds(engine):
    """A statement cannot raise the limits of the parser, which nothing could end."""
    raised = {"max_parser_depth": "1000000000", "max_ast_depth": "0", "max_ast_elements": "0"}
    for sql in ("SELECT " + "[" * 60_000 + "]" * 60_000, "SELECT 1" + "+1" * 60_000):
        with anyio.fail_after(60), pytest.raises(ClickHouseError) as failure:
            await run(engine, sql, **raised)
        assert failure.value.code in {167, 168, 306}
    assert await run(engine, "SELECT 1") == "1"


@pytest.mark.parametrize("value", ["system", "System", "sys\\x74em"])
async def test_a_query_parameter_hides_no_name(engine, value):
    """A query parameter cannot hide a protected name, as in DROP TABLE {d:Identifier}.one."""
    for sql in ("DROP TABLE {d:Identifier}.one", "DROP DATABASE { d : Identifier }"):
        with pytest.raises(ClickHouseError) as failure:
            await run(engine, sql, param_d=value)
        assert failure.value.code == DENIED
    assert await run(engine, "SELECT 1") == "1"


async def test_the_requests_database_hides_no_name(engine):
    """Setting the request's current database cannot hide a protected name."""
    with pytest.raises(ClickHouseError) as failure:
        await engine.execute(Statement("DROP TABLE one", database="system"))
    assert failure.value.code == DENIED
    assert await run(engine, "SELECT 1") == "1"


@pytest.mark.parametrize(("name", "value"), [("dialect", "kusto"), ("enable_trino_dialect", "1")])
async def test_statements_of_other_dialects_are_refused(engine, name, value):
    """SQL dialects other than ClickHouse's are refused, because the check cannot parse them."""
    with pytest.raises(ClickHouseError) as failure:
        await run(engine, "SELECT 1", **{name: value})
    assert failure.value.code == DENIED


async def test_a_statement_ends_with_its_time(engine):
    """A statement fails with TIMEOUT_EXCEEDED, also if the request sets no limit."""
    for settings in ({}, {"max_execution_time": "0"}, {"max_execution_time": "1000"}):
        with pytest.raises(ClickHouseError) as failure:
            await run(engine, ENDLESS, **settings)
        assert failure.value.code in {159, 394}


async def test_a_statement_has_bounded_memory(engine):
    """A statement fails with MEMORY_LIMIT_EXCEEDED, also if the request sets no limit."""
    for settings in ({}, {"max_memory_usage": "0"}):
        with pytest.raises(ClickHouseError) as failure:
            await run(engine, "SELECT groupArray(number) FROM numbers(10000000)", **settings)
        assert failure.value.code == 241


@pytest.mark.parametrize(
    "clause",
    [
        "max_execution_time = 0",
        "max_threads = 1, max_execution_time = 100",
        "`max_memory_usage` = '9000000000'",
        "max_result_bytes = 0",
        "log_comment = 'hidden'",
    ],
)
async def test_a_settings_clause_cannot_lift_a_limit(engine, clause):
    """A SETTINGS clause that raises a limit fails with BAD_ARGUMENTS, which names the setting."""
    with pytest.raises(ClickHouseError) as failure:
        await run(engine, f"SELECT 1 SETTINGS {clause}")
    assert failure.value.code == 36
    assert any(name in failure.value.message for name in ("max_", "log_comment"))


@pytest.mark.parametrize(
    "before",
    [
        "1 /*\nFORMAT x */",
        "$a$'$a$",
        "a$b$ 'x$b$'",
        "\u2018'\u2019 AS \u201c'\u201d",
        "1 // '\n",
        "1 -- '\n",
        "1 # '\n",
        ".5",
        "t..5",
        "$$/*$$",
    ],
)
async def test_nothing_before_it_hides_a_settings_clause(engine, before):
    """Quotes, comments and numbers before a SETTINGS clause are parsed like the engine does."""
    with pytest.raises(ClickHouseError) as failure:
        await run(
            engine, f"WITH 1 AS a, tuple(1) AS t SELECT {before}SETTINGS max_execution_time=0"
        )
    assert failure.value.code in {36, 62}


_PIECES = [
    *("1", "a", ".", "..", "1.", ".5", "1e", "0x", "e", "_", "-", "*", "/", "(", ")", ",", "\\"),
    *("'", "''", "\\'", '"', "`", "$", "$$", "$a$", "$1$", "\u2018", "\u2019", "\u201c", "\u201d"),
    *("--", "//", "/*", "*/", "#", "# ", "#!", "\n", " ", "\r", "\0", "\u00a0", "\u200b", "\u2212"),
]


async def test_statements_are_read_as_the_engine_reads_them(patient):
    """The check finds a SETTINGS clause in any text in which the engine finds one."""
    draw = random.Random(13)
    statements = [
        f"SELECT 1, {_pieces(draw, 7)}SETTINGS max_execution_time=0 {_pieces(draw, 3)}"
        for _ in range(4_000)
    ]
    rows = ", ".join(map(quoted, statements))
    found = 0
    for sql, plain in json.loads(
        await run(
            patient,
            "SELECT groupArray((sql, formatQuerySingleLineOrNull(sql))) FROM "
            f"(SELECT arrayJoin([{rows}]) AS sql) FORMAT JSONCompactColumns",
            max_query_size="100000000",
        )
    )[0][0]:
        if plain is not None and _lifts_a_limit(plain):
            found += 1
            assert _lifts_a_limit(sql), sql
    assert found > 20


def _pieces(draw, most):
    return "".join(draw.choices(_PIECES, k=draw.randint(0, most)))


def _lifts_a_limit(sql):
    try:
        check(sql, StatementLimits(), {}, None)
    except ClickHouseError:
        return True
    return False


async def test_a_settings_clause_can_lower_a_limit(engine):
    """A SETTINGS clause or a request may set a lower limit."""
    assert await run(engine, "SELECT 1 SETTINGS max_execution_time = 2, max_threads = 1") == "1"
    assert await run(engine, "SELECT getSetting('max_result_bytes')", max_result_bytes="77") == "77"


async def test_a_statement_ends_when_its_client_leaves(patient):
    """The engine cancels a statement when its client disconnects."""
    async with anyio.create_task_group() as clients:
        clients.start_soon(run, patient, ENDLESS)
        await until_running(patient, 1)
        clients.cancel_scope.cancel()
    await until_running(patient, 0)


async def test_endless_statements_of_one_worker_leave_the_others_served(patient):
    """A Worker's statements above its share wait; another Worker's statement still runs."""
    gateway = Gateway(patient)

    async def endless():
        await gateway.fetch(_post(ENDLESS), "mallory")

    async with anyio.create_task_group() as clients:
        for _ in range(CALLER_MAX * 2):
            clients.start_soon(endless)
        await until_running(patient, CALLER_MAX)
        honest = await gateway.fetch(_post("SELECT 1"), "honest")
        assert await read_all(honest.body) == b"1\n"
        assert await running(patient) == CALLER_MAX
        clients.cancel_scope.cancel()
    await until_running(patient, 0)


async def test_answers_that_nobody_reads_hold_up_nothing(patient):
    """Unread reply bodies do not block further statements of the Worker."""
    gateway = Gateway(patient)
    request = _post("SELECT number FROM numbers(3)")
    with anyio.fail_after(60):
        answers = [await gateway.fetch(request, "w") for _ in range(CALLER_MAX * 2)]
    assert {answer.status for answer in answers} == {200}
    for answer in answers:
        assert await read_all(answer.body) == b"0\n1\n2\n"


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT 'x' INTO OUTFILE '/tmp/x' TRUNCATE", "358"),
        ("INSERT INTO FUNCTION file('x', 'CSV', 'a String') SELECT 'x'", "164"),
        ("WITH 1 AS x INSERT INTO t SELECT x", "164"),
        ("CREATE TABLE t (a Int8) ENGINE = Memory", "164"),
    ],
)
async def test_a_get_request_changes_nothing(engine, sql, code):
    """The gateway refuses a GET request that writes, with ClickHouse's error code."""
    from urllib.parse import quote

    request = HttpRequest("GET", f"http://c/?query={quote(sql)}", [], b"")
    answer = await Gateway(engine).fetch(request)
    assert answer.status >= 400
    assert dict(answer.headers)["x-clickhouse-exception-code"] == code


def _post(sql):
    return HttpRequest("POST", "http://c/", [], sql.encode())


async def test_all_statements_together_leave_memory_to_others(engine):
    """The engine's memory is limited to half of the machine's, whatever holds it."""
    ask = "SELECT value FROM system.server_settings WHERE name = '{}'"
    limit = int(await run(engine, ask.format("max_server_memory_usage")))
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < limit <= machine / 2
