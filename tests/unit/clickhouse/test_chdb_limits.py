"""One client's statements cannot stop the embedded engine or keep it from the others."""

import anyio
import pytest

from edgesim.clickhouse.chdb import ChdbClickHouse
from edgesim.clickhouse.chdb_limits import Limits
from edgesim.clickhouse.driver import Statement
from edgesim.clickhouse.gateway import CALLER_MAX, Gateway
from edgesim.errors import ClickHouseError
from edgesim.model import HttpRequest, read_all

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        "not __import__('importlib.util').util.find_spec('chdb')", reason="chdb is not installed"
    ),
]
ENDLESS = "SELECT count() FROM numbers(100000000000000) WHERE NOT ignore(sipHash64(number))"
DENIED = 497


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
async def engine(anyio_backend, tmp_path_factory):
    path = tmp_path_factory.mktemp("engine") / "db"
    database = ChdbClickHouse(path, Limits(max_execution_time=3, max_memory_usage=50_000_000))
    yield database
    await database.close()


async def run(engine, sql, **settings):
    answer = await engine.execute(Statement(sql, settings=settings))
    return b"".join([chunk async for chunk in answer.body]).decode().strip()


async def running(engine):
    """Endless statements that the engine works on."""
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
    """An engine whose statements may take long."""
    database = ChdbClickHouse(tmp_path / "db", Limits(max_execution_time=600))
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
    ],
)
async def test_statements_that_would_harm_the_engine_are_refused(engine, sql):
    """ACCESS_DENIED, and the engine goes on."""
    with pytest.raises(ClickHouseError) as failure:
        await run(engine, sql)
    assert failure.value.code == DENIED
    assert await run(engine, "SELECT 1") == "1"


async def test_harmless_system_statements_run(engine):
    """SYSTEM FLUSH LOGS is for everybody."""
    assert await run(engine, "SYSTEM FLUSH LOGS") == ""


async def test_a_statement_ends_with_its_time(engine):
    """TIMEOUT_EXCEEDED, also where its request asks for no limit."""
    for settings in ({}, {"max_execution_time": "0"}, {"max_execution_time": "1000"}):
        with pytest.raises(ClickHouseError) as failure:
            await run(engine, ENDLESS, **settings)
        assert failure.value.code in {159, 394}


async def test_a_statement_has_bounded_memory(engine):
    """MEMORY_LIMIT_EXCEEDED, also where its request asks for more."""
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
    """BAD_ARGUMENTS that names the setting."""
    with pytest.raises(ClickHouseError) as failure:
        await run(engine, f"SELECT 1 SETTINGS {clause}")
    assert failure.value.code == 36
    assert any(name in failure.value.message for name in ("max_", "log_comment"))


async def test_a_settings_clause_can_lower_a_limit(engine):
    """What is below the limit is the statement's own business."""
    assert await run(engine, "SELECT 1 SETTINGS max_execution_time = 2, max_threads = 1") == "1"
    assert await run(engine, "SELECT getSetting('max_result_bytes')", max_result_bytes="77") == "77"


async def test_a_statement_ends_when_its_client_leaves(patient):
    """Its client goes away; the engine stops working on it."""
    async with anyio.create_task_group() as clients:
        clients.start_soon(run, patient, ENDLESS)
        await until_running(patient, 1)
        clients.cancel_scope.cancel()
    await until_running(patient, 0)


async def test_endless_statements_of_one_worker_leave_the_others_served(patient):
    """A Worker has a share of the statements; more than that wait, others do not."""
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
    """A Worker may leave the bodies of many answers unread."""
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
    """The gateway refuses it as a ClickHouse server does."""
    from urllib.parse import quote

    request = HttpRequest("GET", f"http://c/?query={quote(sql)}", [], b"")
    answer = await Gateway(engine).fetch(request)
    assert answer.status >= 400
    assert dict(answer.headers)["x-clickhouse-exception-code"] == code


def _post(sql):
    return HttpRequest("POST", "http://c/", [], sql.encode())
