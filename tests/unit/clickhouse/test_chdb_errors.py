"""The embedded engine reports success only for rows that are stored."""

import gzip
import resource
from collections.abc import AsyncIterator
from urllib.parse import urlencode

import anyio
import pytest

from edgesim.clickhouse.chdb.driver import open_clickhouse
from edgesim.clickhouse.driver import Statement
from edgesim.clickhouse.gateway import Gateway
from edgesim.model import HttpRequest, Stream, read_all

pytestmark = pytest.mark.anyio


class Engine:
    """Client of the engine through the gateway, as a Worker uses it."""

    def __init__(self, database) -> None:
        self.database = database
        self._gateway = Gateway(database)
        self.summary = ""

    async def ask(self, query, body=b"", *, gz=False, **settings):
        """Run one statement; return its status and text."""
        headers = [("content-encoding", "gzip")] if gz else []
        url = "http://c/?" + urlencode({"query": query, **settings})
        answer = await self._gateway.fetch(HttpRequest("POST", url, headers, body))
        self.summary = dict(answer.headers).get("x-clickhouse-summary", "")
        return answer.status, (await read_all(answer.body)).decode()

    async def run(self, query, body=b"", **settings):
        """Run a statement that must succeed; return its text."""
        status, text = await self.ask(query, body, **settings)
        assert status == 200, text
        return text.strip()


@pytest.fixture(scope="module")
def anyio_backend():
    """One event loop for all tests: the shared engine's process belongs to it."""
    return "asyncio"


@pytest.fixture(scope="module")
async def shared(anyio_backend, tmp_path_factory):
    """An engine for the tests that leave its process alone."""
    async with open_clickhouse(f"chdb:{tmp_path_factory.mktemp('chdb')}/db") as database:
        yield Engine(database)


@pytest.fixture
async def engine(shared):
    """The shared engine; what the test has created is dropped at its end."""
    yield shared
    tables = "SELECT name FROM system.tables WHERE database = currentDatabase()"
    for table in (await shared.run(tables)).split():
        await shared.run(f"DROP TABLE IF EXISTS `{table}` SYNC")  # a view takes its own table along


@pytest.fixture
async def alone(tmp_path):
    """An engine whose process the test limits or kills."""
    async with open_clickhouse(f"chdb:{tmp_path}/db") as database:
        yield Engine(database)


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 7):
        yield data[at : at + 7]


FORMS = {
    "values": ("INSERT INTO t VALUES ({}, 'a')", None),
    "values with a comment": ("-- first\nINSERT /* x */ INTO t (n, s) VALUES ({}, 'a')", None),
    "inline rows": ('INSERT INTO t FORMAT JSONEachRow {{"n": {}, "s": "a"}}', None),
    "json": ("INSERT INTO t FORMAT JSONEachRow", '{{"n": {}, "s": "a"}}\n'),
    "settings": (
        "INSERT INTO t SETTINGS async_insert = 0 -- c\nFORMAT JSONEachRow",
        '{{"n": {}, "s": "a"}}\n',
    ),
    "csv with names": ("INSERT INTO t (s, n) FORMAT CSVWithNames", "n,s\n{},a\n"),
    "input": (
        "INSERT INTO t SELECT n, s FROM input('n UInt32, s String') FORMAT TSV",
        "{}\ta\n",
    ),
    "select": ("INSERT INTO t SELECT {}, 'a'", None),
    "with": ("WITH {} AS n INSERT INTO t SELECT n, 'a'", None),
}
SETTINGS = {
    "plain": {},
    "async": {"async_insert": "1", "wait_for_async_insert": "1"},
    "async unwaited": {"async_insert": "1", "wait_for_async_insert": "0"},
}


def fill(form: str, number: int) -> tuple[str, bytes]:
    sql, data = FORMS[form]
    return sql.format(number) if data is None else sql, (data or "").format(number).encode()


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
async def test_a_violated_constraint_is_an_error(engine, settings):
    """Every form of INSERT reports a violated constraint; a valid row is stored and counted."""
    await engine.run(
        "CREATE TABLE t (n UInt32, s String, CONSTRAINT few CHECK n < 1000) "
        "ENGINE = MergeTree ORDER BY n"
    )
    for number, form in enumerate(FORMS):
        status, text = await engine.ask(*fill(form, 5000 + number), **settings)
        assert (status, text[:9]) == (500, "Code: 469"), form
        await engine.run(*fill(form, number), **settings)
        assert engine.summary == '{"written_rows":"1"}' or form == "with"
        assert await engine.run("SELECT count(), max(n) FROM t") == f"{number + 1}\t{number}"


@pytest.mark.parametrize("form", FORMS)
async def test_a_failing_view_is_an_error(engine, form):
    """An exception in a materialized view is returned to the client."""
    await engine.run("CREATE TABLE t (n UInt32, s String) ENGINE = MergeTree ORDER BY n")
    await engine.run(
        "CREATE MATERIALIZED VIEW v ENGINE = MergeTree ORDER BY n AS "
        "SELECT n + throwIf(n > 1000) AS n FROM t"
    )
    status, text = await engine.ask(*fill(form, 5000))
    assert (status, text[:9]) == (500, "Code: 395")
    await engine.run(*fill(form, 5))
    assert await engine.run("SELECT groupArray(n) FROM v") == "[5]"


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("streamed", [False, True])
async def test_too_many_partitions_is_an_error(engine, gz, streamed):
    """An insert with too many partitions stores nothing, plain or gzip, buffered or streamed."""
    await engine.run("CREATE TABLE t (n UInt32) ENGINE = MergeTree PARTITION BY n ORDER BY n")
    insert = "INSERT INTO t FORMAT CSV"

    def body(count):
        rows = "".join(f"{n}\n" for n in range(count)).encode()
        data = gzip.compress(rows) if gz else rows
        return Stream(pieces(data)) if streamed else data

    status, text = await engine.ask(insert, body(101), gz=gz)
    assert (status, text[:9]) == (500, "Code: 252")
    assert await engine.run("SELECT count() FROM t") == "0"
    await engine.run(insert, body(100), gz=gz)
    assert await engine.run("SELECT count() FROM t") == "100"


@pytest.mark.parametrize(
    "name",
    ["Native", "Parquet", "RowBinary", "Arrow", "MsgPack", "JSONCompactEachRow", "TSKV", "Avro"],
)
async def test_every_format_reports_the_write(engine, name):
    """Binary and text formats report a violated constraint."""
    await engine.run(
        "CREATE TABLE t (n UInt32, s String, CONSTRAINT few CHECK n < 1000) "
        "ENGINE = MergeTree ORDER BY n"
    )

    async def rows(number):
        answer = await engine.database.execute(
            Statement(f"SELECT toUInt32({number}) AS n, 'a' AS s FORMAT {name}")
        )
        return b"".join([piece async for piece in answer.body])

    status, text = await engine.ask(f"INSERT INTO t FORMAT {name}", await rows(5000))
    assert (status, text[:9]) == (500, "Code: 469")
    await engine.run(f"INSERT INTO t FORMAT {name}", await rows(5))
    assert await engine.run("SELECT n, s FROM t") == "5\ta"


async def test_inserts_at_once_each_have_their_own_answer(engine):
    """Of 20 concurrent inserts every second one fails; replies and stored rows agree."""
    await engine.run(
        "CREATE TABLE t (n UInt32, CONSTRAINT even CHECK n % 2 = 0) ENGINE = MergeTree ORDER BY n"
    )
    stored = []

    async def insert(number):
        status, _ = await engine.ask("INSERT INTO t FORMAT CSV", f"{number}\n".encode())
        if status == 200:
            stored.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(insert, number)
    assert sorted(stored) == list(range(0, 20, 2))
    assert await engine.run("SELECT arraySort(groupArray(n)) FROM t") == str(
        sorted(stored)
    ).replace(" ", "")


async def test_a_function_as_the_target(engine):
    """INSERT INTO FUNCTION accepts data and reports a failed write."""
    await engine.run("INSERT INTO FUNCTION null('n UInt32') FORMAT CSV", b"1\n2\n")
    assert engine.summary == '{"written_rows":"2"}'
    insert = "INSERT INTO FUNCTION file('/elsewhere/x.csv', 'CSV', 'n UInt32') FORMAT CSV"
    status, _ = await engine.ask(insert, b"1\n")
    assert status >= 400


async def test_a_timeout_is_an_error(engine):
    """An insert that exceeds its time fails, also with timeout_overflow_mode=break."""
    await engine.run("CREATE TABLE t (n UInt32) ENGINE = MergeTree ORDER BY n")
    await engine.run("CREATE TABLE u (n UInt32) ENGINE = MergeTree ORDER BY n")
    await engine.run(
        "CREATE MATERIALIZED VIEW v TO u AS SELECT n FROM t WHERE sleepEachRow(0.2) = 0"
    )
    for mode in ("throw", "break"):
        status, text = await engine.ask(
            "INSERT INTO t FORMAT CSV",
            b"1\n2\n3\n4\n5\n",
            max_execution_time="0.5",
            timeout_overflow_mode=mode,
        )
        assert status != 200, text
    assert await engine.run("SELECT count() FROM u") == "0"


async def test_an_error_text_that_is_not_utf8(engine):
    """The engine's error code is kept when its message contains invalid UTF-8."""
    await engine.run("CREATE TABLE t (n UInt32) ENGINE = MergeTree ORDER BY n")
    for data in (b'{"n": "\xff"}\n', b'{"n": 1}\n\xc3\x28\n'):
        status, text = await engine.ask("INSERT INTO t FORMAT JSONEachRow", data)
        assert status == 400, text
        assert text.startswith(("Code: 27.", "Code: 117.", "Code: 26.", "Code: 6."))
        assert "/dev/fd" not in text
    sql = "SELECT throwIf(number = 0, unhex('FF')) FROM numbers(100000)"
    status, text = await engine.ask(sql)
    assert (status, text[:9]) == (500, "Code: 395")


async def test_without_descriptors(alone):
    """Out of file descriptors, inserts fail; every acknowledged row is stored."""
    await alone.run("CREATE TABLE t (n UInt32, s String) ENGINE = MergeTree ORDER BY n")
    pid = alone.database._process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    acknowledged = []
    for limit in range(40, 8, -4):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
        for number, form in enumerate(FORMS):
            value = limit * 10 + number
            if (await alone.ask(*fill(form, value)))[0] == 200:
                acknowledged.append(value)
            pid = await _same_limit(alone, limit, before[1])
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    assert len(acknowledged) < 8 * len(FORMS)
    await alone.run(*fill("json", 1))
    found = await alone.run("SELECT arraySort(groupArray(n)) FROM t")
    assert set(acknowledged) <= set(map(int, found[1:-1].split(",")))


async def _same_limit(engine, limit, most):
    """Set the limit again, as the engine may have exited and been restarted without it."""
    process = engine.database._process
    if process is None or process.returncode is not None:
        await engine.ask("SELECT 1")
        process = engine.database._process
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (limit, most))
    return process.pid


async def test_a_full_disk(alone):
    """Every form of INSERT fails while files cannot grow and works again afterwards."""
    await alone.run("CREATE TABLE t (n UInt32, s String) ENGINE = MergeTree ORDER BY n")
    pid = alone.database._process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (16, before[1]))
    for form in FORMS:
        status, text = await alone.ask(*fill(form, 7))
        assert status >= 500, text
    if alone.database._process.pid == pid:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    assert await alone.run("SELECT count() FROM t") == "0"
    for number, form in enumerate(FORMS):
        await alone.run(*fill(form, number))
    assert await alone.run("SELECT count() FROM t") == str(len(FORMS))


async def test_an_engine_killed_in_an_insert_is_no_success(alone):
    """An engine killed during an insert is a 503; the next statement starts a new engine."""
    await alone.run("CREATE TABLE t (n UInt32) ENGINE = MergeTree ORDER BY n")
    await alone.run("CREATE TABLE u (n UInt32) ENGINE = MergeTree ORDER BY n")
    await alone.run("CREATE MATERIALIZED VIEW v TO u AS SELECT n FROM t WHERE sleepEachRow(1) = 0")
    answers = []

    async def insert():
        longest = {"function_sleep_max_microseconds_per_block": "60000000"}
        answers.append(await alone.ask("INSERT INTO t FORMAT CSV", b"1\n" * 60, **longest))

    running = "SELECT count() FROM system.processes WHERE startsWith(query, 'INSERT INTO t')"
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(insert)
        with anyio.fail_after(60):
            while await alone.run(running) != "1":  # noqa: ASYNC110 (the engine sends no event)
                await anyio.sleep(0.01)
        alone.database._process.kill()
    [(status, text)] = answers
    assert status == 503
    assert "ended during a statement" in text
    assert await alone.run("SELECT count() FROM u") == "0"


@pytest.mark.parametrize("name", ["a\r\nx-evil: 1", "a\0b", "\x7f"])
async def test_a_query_id_that_no_header_can_hold_is_refused(engine, name):
    """The id is sent back in a header."""
    status, text = await engine.ask("SELECT 1", query_id=name)
    assert status == 400
    assert "query_id has a character that is not printable" in text
