"""SQL writes no file of the database's folder by its path: one bad file keeps the engine down."""

import pytest

from edgesim.clickhouse.chdb.driver import open_clickhouse
from edgesim.clickhouse.gateway import Gateway
from edgesim.model import HttpRequest, read_all

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        "not __import__('importlib.util').util.find_spec('chdb')", reason="chdb is not installed"
    ),
]
TEXT = "'RawBLOB', 'x String'"
RENAMES = "SETTINGS rename_files_after_processing = 'planted_%f%e'"
A_DISK = "disk(type = object_storage, object_storage_type = local, path = 'PATH/')"
A_PIPE = "SOURCE(FILE(format 'CSV' path '/dev/fd/0'))"
A_CACHE = "SOURCE(FILE(path 'PATH' format 'CSV')) LAYOUT(SSD_CACHE(PATH 'PATH')) LIFETIME(0)"
AN_ERROR_FILE = "input_format_allow_errors_num = 9, input_format_record_errors_file_path = 'PATH'"


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
async def database(anyio_backend, tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "db"
    async with open_clickhouse(f"chdb:{path}") as driver:
        gateway = Gateway(driver)

        async def ask(sql: str, method: str = "POST", query: str = "") -> tuple[int, str]:
            url, body = f"http://c/?{query}", sql.encode()
            answer = await gateway.fetch(HttpRequest(method, url, [], body))
            return answer.status, (await read_all(answer.body)).decode()

        assert await ask("CREATE TABLE kept (a Int8) ENGINE = MergeTree ORDER BY a") == (200, "")
        assert await ask("INSERT INTO kept VALUES (7)") == (200, "")
        yield path, driver, ask


@pytest.mark.parametrize(
    "script",
    [
        f"WITH 1 AS y INSERT INTO FUNCTION file('PATH', {TEXT}) SELECT 'x'",
        f"INSERT INTO FUNCTION url('file://PATH', {TEXT}) SELECT 'x'",
        f"INSERT FUNCTION `url`('file://PATH', {TEXT}) SELECT 'x'",
        "INSERT INTO FUNCTION icebergLocal('PATH', 'Parquet', 'x String') SELECT 'x'",
        "CREATE TABLE w (x String) ENGINE = URL('file://PATH', 'TSV'); INSERT INTO w SELECT 'x'",
        "CREATE TABLE w (x String) ENGINE `URL`('file://PATH', 'CSV'); INSERT INTO w SELECT 'x'",
        "CREATE TABLE `select` (x String) ENGINE = IcebergLocal('PATH/', 'Parquet')",
        "CREATE TABLE w (x String) ENGINE = File('RawBLOB', 'PATH'); INSERT INTO w SELECT 'x'",
        f"CREATE TABLE w AS file('PATH', {TEXT}); INSERT INTO w SELECT 'x'",
        f"CREATE TABLE w (x String) AS `file`('PATH', {TEXT}); INSERT INTO w SELECT 'x'",
        "CREATE MATERIALIZED VIEW w ENGINE = URL('file://PATH', 'CSV') AS SELECT a FROM kept",
        "CREATE DATABASE w ENGINE = SQLite('PATH')",
        "CREATE DATABASE w ENGINE = Filesystem('FOLDER')",
        f"CREATE TABLE w (x String) ENGINE = MergeTree ORDER BY x SETTINGS disk = {A_DISK}",
        f"CREATE DICTIONARY w (x UInt8) PRIMARY KEY x {A_CACHE}; SYSTEM RELOAD DICTIONARY w",
        "ATTACH TABLE w FROM 'PATH' (x String) ENGINE = Log",
        "SELECT 1 AS x FORMAT Protobuf SETTINGS output_format_schema = 'PATH'",
        f"INSERT INTO kept SETTINGS {AN_ERROR_FILE} FORMAT CSV\nx",
        f"SELECT * FROM file('FOLDER/metadata/default/kept.sql', 'LineAsString') {RENAMES}",
        "SELECT 1 INTO\u200bOUTFILE 'PATH'",
    ],
)
async def test_no_file_is_written_or_renamed_by_its_path(database, script):
    """Every way to write at a path is refused, and no file appears."""
    path, _, ask = database
    planted = f"{path}/planted.sql"
    for statement in script.replace("PATH", planted).replace("FOLDER", str(path)).split("; "):
        status, text = await ask(statement)
    assert status != 200, text
    assert [*path.rglob("*planted*")] == []
    assert await ask("SELECT a FROM kept") == (200, "7\n")


@pytest.mark.parametrize(
    ("setting", "sql"),
    [
        ("output_format_schema=PATH", "SELECT 1 AS x FORMAT Protobuf"),
        (
            "input_format_allow_errors_num=9&input_format_record_errors_file_path=PATH",
            "INSERT INTO kept FORMAT CSV\nx",
        ),
        (
            "rename_files_after_processing=planted_%25f",
            "SELECT * FROM file('FOLDER/metadata/default/*.sql', 'LineAsString')",
        ),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_no_setting_of_a_request_writes_or_renames_a_file(database, setting, sql, method):
    """Settings that name a file are refused as parameters of the request too, by GET as well."""
    path, _, ask = database
    query = setting.replace("PATH", f"{path}/planted.sql")
    sql = sql.replace("FOLDER", str(path))
    if method == "GET":
        query, sql = f"{query}&query={sql}".replace("\n", "%0A").replace(" ", "%20"), ""
    status, text = await ask(sql, method, query)
    assert status != 200, text
    assert [*path.rglob("*planted*")] == []


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM file('/dev/fd/0', 'LineAsString')",
        "SELECT * FROM `file`('/dev/fd/0', 'LineAsString')",
        "SELECT * FROM file/**/('/proc/self/fd/0')",
        "DESCRIBE TABLE file('/dev/stdin', 'CSV')",
        "SELECT file('/dev/fd/0')",
        "SELECT * FROM file('/tmp/../dev/fd/0', 'LineAsString')",
        "SELECT * FROM file('FOLDER/link', 'LineAsString')",
        "SELECT * FROM file('/d?v/fd/0', 'LineAsString')",
        "SELECT * FROM file('{/dev,/x}/fd/0', 'LineAsString')",
        "SELECT * FROM file('FOLDER/{a,../../../../../../dev/fd/0}', 'LineAsString')",
        "SELECT * FROM file('\\x2fdev/fd/0', 'LineAsString')",
        "SELECT * FROM file(concat('/dev', '/fd/0'), 'LineAsString')",
        "SELECT * FROM file('/de' || 'v/fd/0', 'LineAsString')",
        "SELECT * FROM file($$/dev/fd/0$$, 'LineAsString')",
        "WITH '/dev/fd/0' AS p SELECT * FROM file(p, 'LineAsString')",
        "SELECT * FROM url('file:///dev/fd/0', 'LineAsString')",
        "INSERT INTO kept FROM INFILE '/dev/fd/0' FORMAT CSV",
        "CREATE VIEW w AS SELECT * FROM file('/dev/fd/0', 'LineAsString')",
        f"CREATE DICTIONARY w (x UInt8) PRIMARY KEY x {A_PIPE} LAYOUT(FLAT()) LIFETIME(0)",
    ],
)
async def test_no_device_or_pipe_is_read(database, sql):
    """A statement that would wait for a pipe for ever is refused, whatever names the pipe."""
    path, _, ask = database
    link = path / "link"
    if not link.is_symlink():
        link.symlink_to("/dev/fd/0")
    status, text = await ask(sql.replace("FOLDER", str(path)))
    assert status != 200
    assert "ACCESS_DENIED" in text or "the embedded engine reads files" in text


async def test_the_engine_starts_after_all_that(database):
    """The tables and their rows are there after the engine has been started anew."""
    _, driver, ask = database
    await driver.close()
    assert await ask("SELECT a FROM kept") == (200, "7\n")


async def test_tables_that_only_resemble_these_are_made(database):
    """Engines and functions without a path work, and columns may have the names of keywords."""
    _, _, ask = database
    for sql in (
        "CREATE TABLE e (engine String, url String) ENGINE MergeTree ORDER BY engine",
        "CREATE TABLE part (engine String) ENGINE = MergeTree PARTITION BY engine ORDER BY engine",
        "INSERT INTO e (engine, url) SELECT engine, name FROM system.tables WHERE engine = 'Log'",
        "CREATE MATERIALIZED VIEW m ENGINE = Memory AS SELECT engine FROM e",
        "CREATE TABLE url (file String) ENGINE = File(CSV)",
        "INSERT INTO url (file) VALUES ('x')",
        "CREATE TABLE file (`a b` Int8) ENGINE = Null",
        "CREATE TABLE n AS numbers(3)",
        "CREATE TABLE c ENGINE = Log AS SELECT CAST(1 AS Decimal(9, 2)) AS d",
        "CREATE TABLE v AS (SELECT 1 AS file)",
        "CREATE FUNCTION plus_one AS (x) -> x + 1",
        "INSERT INTO FUNCTION null('a Int8') SELECT 1",
        "CREATE DATABASE other ENGINE = Atomic",
        "\ufeffCREATE TABLE\u00a0bom (a Int8) ENGINE = Null",
    ):
        assert await ask(sql) == (200, ""), sql
    assert await ask("SELECT file FROM url FORMAT TSV") == (200, "x\n")
