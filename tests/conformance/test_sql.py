"""SQL of pipelines: statements with the rows that the platform's documentation promises.

Each statement runs over the same three rows of the stream ``s``.
"""

import json
import resource
from pathlib import Path
from typing import Any

import anyio
import pytest

from edgesim.config.pipelines import Field
from edgesim.errors import RunError
from edgesim.pipelines.segment import RowChunk
from edgesim.pipelines.sql.engine import SqlEngine, SqlEngineError
from edgesim.pipelines.sql.transformation import Transformation
from edgesim.pipelines.sql.wire import FileFormat, Query, Transformed

FIELDS = [
    Field("int64", "n", required=True),
    Field("string", "name"),
    Field("float64", "price"),
    Field("timestamp", "at"),
    Field("json", "props"),
    Field("list", "tags", items=Field("string")),
    Field("struct", "geo", fields=[Field("string", "city"), Field("int32", "zip")]),
    Field("binary", "raw"),
    Field("bool", "ok"),
]
ROWS = [
    {
        "n": 1,
        "name": "Ada",
        "price": 2.5,
        "at": "2026-03-04T05:06:07.089Z",
        "props": {"a": {"b": [10, "x", True]}, "s": "t\u00e4xt", "f": 1.5, "z": None},
        "tags": ["red", "blue"],
        "geo": {"city": "Oslo", "zip": 150},
        "raw": "aGk=",
        "ok": True,
    },
    {
        "n": -2,
        "name": "bob stone",
        "price": None,
        "at": None,
        "props": [1, 2],
        "tags": [],
        "geo": None,
        "raw": None,
        "ok": False,
    },
    dict.fromkeys([field.name for field in FIELDS]) | {"n": 30},
]
STATEMENTS: dict[str, list[Any]] = {
    # --- clauses ---
    "SELECT n FROM s WHERE n > 0": [1, 30],
    "SELECT n<<1 AS x FROM s WHERE n >> 1 > 0": [60],
    "SELECT n FROM s WHERE name ~~ 'A%' AND name !~~* 'x%' AND n <=> 1 AND n == 1": [1],
    "SELECT tags @> ['red'] AND ['red'] <@ tags AS x FROM s": [True, False, None],
    "SELECT array_positions(tags, 'blue') AS x FROM s WHERE n = 1": [[2]],
    "SELECT arrow_cast(arrow_cast(n, 'Time64(Nanosecond)'), 'Time64(Nanosecond)') AS x FROM s "
    "WHERE n > 0": ["00:00:00.000000001", "00:00:00.000000030"],
    "SELECT [arrow_cast(n * 1000 + 1, 'Duration(Nanosecond)')] AS x FROM s WHERE n = 1": [
        ["PT0.000001S"]
    ],
    "SELECT n FROM s WHERE name LIKE 'A%'": [1],
    "SELECT n FROM s WHERE name ILIKE 'BOB%' OR price IS NULL AND n > 5": [-2, 30],
    "SELECT n FROM s WHERE name IS NOT NULL AND NOT ok": [-2],
    "SELECT n FROM s WHERE n IN (1, 2) OR n BETWEEN 29 AND 31": [1, 30],
    "SELECT n FROM s WHERE name IS DISTINCT FROM 'Ada'": [-2, 30],
    "SELECT e.n FROM s e WHERE e.n = 30": [30],
    "SELECT x FROM (SELECT n * 2 AS x FROM s) AS t WHERE x > 10": [60],
    "WITH big AS (SELECT n FROM s WHERE n > 0), more AS (SELECT n + 1 AS m FROM big)"
    " SELECT m FROM more": [2, 31],
    "SELECT CASE WHEN n < 0 THEN 'low' WHEN n > 9 THEN 'high' ELSE 'mid' END AS c FROM s": [
        *("mid", "low", "high")
    ],
    "SELECT UNNEST(tags) AS tag FROM s": ["red", "blue"],
    "SELECT UNNEST([7, 8]) AS x FROM s WHERE n = 1": [7, 8],
    "SELECT tag FROM (SELECT unnest(tags) AS tag FROM s) AS t WHERE tag <> 'red'": ["blue"],
    "SELECT * EXCEPT (name, price, at, props, tags, geo, raw, ok) FROM s": [1, -2, 30],
    # --- numbers ---
    "SELECT abs(n) AS x FROM s": [1, 2, 30],
    "SELECT round(price * 1.1, 2) AS x FROM s WHERE n = 1": [2.75],
    "SELECT ceil(price) + floor(price) AS x FROM s WHERE n = 1": [5.0],
    "SELECT power(2, 10) AS x FROM s WHERE n = 1": [1024],
    "SELECT gcd(12, 18) + lcm(4, 6) AS x FROM s WHERE n = 1": [18],
    "SELECT signum(n) AS x FROM s WHERE n < 0": [-1],
    "SELECT trunc(3.789, 1) AS x FROM s WHERE n = 1": [3.7],
    "SELECT sqrt(16) + cbrt(27) AS x FROM s WHERE n = 1": [7.0],
    "SELECT log(2, 8) AS x FROM s WHERE n = 1": [3.0],
    "SELECT factorial(5) % 7 AS x FROM s WHERE n = 1": [1],
    "SELECT 7 / 2 AS x FROM s WHERE n = 1": [3],
    "SELECT n::double / 4 AS x FROM s WHERE n = 30": [7.5],
    # --- conditions ---
    "SELECT coalesce(name, 'nobody') AS x FROM s": ["Ada", "bob stone", "nobody"],
    "SELECT nullif(n, 1) AS x FROM s": [None, -2, 30],
    "SELECT nvl2(price, 'priced', 'free') AS x FROM s": ["priced", "free", "free"],
    "SELECT ifnull(price, 0.0) AS x FROM s": [2.5, 0.0, 0.0],
    # --- text ---
    "SELECT upper(name) || '!' AS x FROM s WHERE n = 1": ["ADA!"],
    "SELECT initcap(name) AS x FROM s WHERE n = -2": ["Bob Stone"],
    "SELECT concat_ws('-', name, 'x', 'y') AS x FROM s WHERE n = 1": ["Ada-x-y"],
    "SELECT lpad(name, 5, '*') AS x FROM s WHERE n = 1": ["**Ada"],
    "SELECT split_part(name, ' ', 2) AS x FROM s WHERE n = -2": ["stone"],
    "SELECT strpos(name, 'st') AS x FROM s WHERE n = -2": [5],
    "SELECT substr(name, 2, 1) AS x FROM s WHERE n = 1": ["d"],
    "SELECT substring(name FROM 1 FOR 3) AS x FROM s WHERE n = -2": ["bob"],
    "SELECT btrim('xxaxx', 'x') || reverse('ab') AS x FROM s WHERE n = 1": ["aba"],
    "SELECT replace(name, 'o', '0') AS x FROM s WHERE n = -2": ["b0b st0ne"],
    "SELECT to_hex(255) AS x FROM s WHERE n = 1": ["ff"],
    "SELECT levenshtein('flaw', 'lawn') AS x FROM s WHERE n = 1": [2],
    "SELECT starts_with(name, 'A') AND ends_with(name, 'a') AS x FROM s WHERE n = 1": [True],
    "SELECT overlay('Rxxt' placing 'oo' from 2 for 2) AS x FROM s WHERE n = 1": ["Root"],
    "SELECT substr_index('a.b.c', '.', -1) AS x FROM s WHERE n = 1": ["c"],
    "SELECT find_in_set('q', 'p,q') AS x FROM s WHERE n = 1": [2],
    "SELECT position('b' in 'abc') AS x FROM s WHERE n = 1": [2],
    # --- binary, hashes ---
    "SELECT encode(raw, 'hex') AS x FROM s WHERE n = 1": ["6869"],
    "SELECT decode('aGk=', 'base64') AS x FROM s WHERE n = 1": ["aGk="],
    "SELECT raw FROM s WHERE n = 1": ["aGk="],
    "SELECT X'6869' = raw AS x FROM s WHERE n = 1": [True],
    "SELECT md5('a') AS x FROM s WHERE n = 1": ["0cc175b9c0f1b6a831c399e269772661"],
    "SELECT encode(digest('a', 'md5'), 'hex') = md5('a') AS x FROM s WHERE n = 1": [True],
    "SELECT encode(sha256('a'), 'hex') LIKE 'ca978112%' AS x FROM s WHERE n = 1": [True],
    # --- regular expressions ---
    "SELECT regexp_like(name, '^b.b', 'i') AS x FROM s": [False, True, None],
    "SELECT regexp_match(name, '(o)(b)') AS x FROM s WHERE n = -2": [["o", "b"]],
    "SELECT regexp_replace(name, '[aeiou]', '_', 'g') AS x FROM s WHERE n = -2": ["b_b st_n_"],
    "SELECT n FROM s WHERE name ~ 'one$'": [-2],
    # --- JSON ---
    "SELECT props FROM s WHERE n < 0": [[1, 2]],
    "SELECT props->'a'->'b'->0 AS x FROM s": ["10", None, None],
    "SELECT (props->'a'->'b'->0)::int + 1 AS x FROM s WHERE n = 1": [11],
    "SELECT props->>'s' AS x FROM s WHERE n = 1": ["t\u00e4xt"],
    "SELECT props->'a'->>'b' AS x FROM s WHERE n = 1": ['[10,"x",true]'],
    "SELECT n FROM s WHERE props->>'s' = 't\u00e4xt' AND props->'f' = '1.5'": [1],
    "SELECT props ? 'a' AS x FROM s": [True, False, None],
    "SELECT props ? 'z' AND NOT props ? 'q' AS x FROM s WHERE n = 1": [True],
    "SELECT json_contains(props, 'a', 'b', 2) AS x FROM s WHERE n = 1": [True],
    "SELECT json_get(props, 'a', 'b', 1) AS x FROM s WHERE n = 1": ["x"],
    "SELECT json_get_str(props, 's') || json_get_str(props, 'no') AS x FROM s WHERE n = 1": [
        "t\u00e4xt"
    ],
    "SELECT json_get_int(props, 'a', 'b', 0) AS x FROM s": [10, 0, 0],
    "SELECT json_get_float(props, 'f') AS x FROM s": [1.5, 0.0, 0.0],
    "SELECT json_get_bool(props, 'a', 'b', 2) AS x FROM s": [True, False, False],
    "SELECT json_get_json('{\"a\": {\"b\": {\"c\": 1}}}', 'a', 'b') AS x FROM s WHERE n = 1": [
        '{"c": 1}'
    ],
    "SELECT json_as_text(props, 'a', 'b', 0) AS x FROM s WHERE n = 1": ["10"],
    "SELECT json_length(props, 'a', 'b') AS x FROM s": [3, 0, 0],
    "SELECT json_length(props) AS x FROM s WHERE n < 0": [2],
    "SELECT extract_json(props, '$.a.b[*]') AS x FROM s WHERE n = 1": [["10", '"x"', "true"]],
    "SELECT extract_json_string(props, '$.s') AS x FROM s": ["t\u00e4xt", None, None],
    "SELECT json_get('{\"a\": \"no) -> 1\"}', 'a') AS x FROM s WHERE n = 1": ["no) -> 1"],
    "SELECT upper(coalesce(props->>'s', name, '?')) AS x FROM s": [
        *("T\u00c4XT", "BOB STONE", "?")
    ],
    # --- times ---
    "SELECT at FROM s": ["2026-03-04T05:06:07.089Z", None, None],
    "SELECT n FROM s WHERE at >= '2026-03-04' AND at < '2026-03-05T00:00:00'": [1],
    "SELECT date_trunc('hour', at) AS x FROM s WHERE n = 1": ["2026-03-04T05:00:00Z"],
    "SELECT date_bin(interval '15 minutes', at) AS x FROM s WHERE n = 1": ["2026-03-04T05:00:00Z"],
    "SELECT date_part('doy', at) AS x FROM s WHERE n = 1": [63],
    "SELECT extract(year FROM at) AS x FROM s WHERE n = 1": [2026],
    "SELECT to_char(at, '%d.%m.%Y') AS x FROM s WHERE n = 1": ["04.03.2026"],
    "SELECT make_date(2026, 1, 31) AS x FROM s WHERE n = 1": ["2026-01-31"],
    "SELECT to_timestamp('2026-01-31T09:26:56.5-05:00') AS x FROM s WHERE n = 1": [
        "2026-01-31T14:26:56.500Z"
    ],
    "SELECT to_timestamp_millis(1700000000123) AS x FROM s WHERE n = 1": [
        "2023-11-14T22:13:20.123Z"
    ],
    "SELECT to_timestamp_seconds('10:00 05-17-2026', '%c', '%H:%M %m-%d-%Y') AS x FROM s"
    " WHERE n = 1": ["2026-05-17T10:00:00Z"],
    "SELECT from_unixtime(60) AS x FROM s WHERE n = 1": ["1970-01-01T00:01:00Z"],
    "SELECT now() AS x FROM s WHERE n = 1": ["2026-11-29T12:00:00.500Z"],
    "SELECT at + interval '1 day' AS x FROM s WHERE n = 1": ["2026-03-05T05:06:07.089Z"],
    # --- lists and structs ---
    "SELECT tags[1] AS x FROM s": ["red", None, None],
    "SELECT [n, n + 1] AS x FROM s WHERE n = 1": [[1, 2]],
    "SELECT array_length(tags) AS x FROM s WHERE n = 1": [2],
    "SELECT array_append(tags, 'c')[3] AS x FROM s WHERE n = 1": ["c"],
    "SELECT array_has(tags, 'blue') AS x FROM s WHERE n = 1": [True],
    "SELECT array_to_string(array_sort(tags), '+') AS x FROM s WHERE n = 1": ["blue+red"],
    "SELECT array_distinct([3, 3]) AS x FROM s WHERE n = 1": [[3]],
    "SELECT array_position([4, 5], 5) AS x FROM s WHERE n = 1": [2],
    "SELECT flatten([[1], [2, 3]]) AS x FROM s WHERE n = 1": [[1, 2, 3]],
    "SELECT array_intersect([1, 2], [2, 3]) AS x FROM s WHERE n = 1": [[2]],
    "SELECT array_remove_all([1, 2, 1], 1) AS x FROM s WHERE n = 1": [[2]],
    "SELECT array_repeat('a', 2) AS x FROM s WHERE n = 1": [["a", "a"]],
    "SELECT geo.city AS x FROM s": ["Oslo", None, None],
    "SELECT geo FROM s WHERE n = 1": [{"city": "Oslo", "zip": 150}],
    "SELECT struct(name, n) AS x FROM s WHERE n = 1": [{"c0": "Ada", "c1": 1}],
    "SELECT e.c1 FROM (SELECT struct('u', n) AS e FROM s) AS t": [1, -2, 30],
    # --- types ---
    "SELECT arrow_typeof(n) || arrow_typeof(name) AS x FROM s WHERE n = 1": ["Int64Utf8"],
    "SELECT arrow_typeof(arrow_cast(n, 'Int8')) AS x FROM s WHERE n = 1": ["Int8"],
    "SELECT cast('12' AS int) + '3'::bigint AS x FROM s WHERE n = 1": [15],
    "SELECT try_cast(name AS int) AS x FROM s WHERE n = 1": [None],
    "SELECT 1E-3 + 0.5 AS x FROM s WHERE n = 1": [0.501],
}
REFUSED = {
    "SELECT nope FROM s": "No field named nope",
    "SELECT uper(name) FROM s": "Invalid function 'uper'",
    "SELECT n, n FROM s": "unique",
    "SELECT n FROM": "Expected",
    "SELECT approx_distinct(n) FROM s": "aggregate",
    "SELECT n FROM s LIMIT 5": "Limit is not for pipelines",
    "SELECT n FROM s ORDER BY n": "Sort is not for pipelines",
    "SELECT DISTINCT n FROM s": "is not for pipelines",
    "SELECT a.n FROM s a JOIN s b ON a.n = b.n": "Join is not for pipelines",
    "SELECT n FROM s UNION ALL SELECT n FROM s": "Union is not for pipelines",
    "SELECT row_number() OVER () AS x FROM s": "WindowAggr is not for pipelines",
    "SELECT extract_json(props, 'no path') AS x FROM s": None,
}
"""Text of the error by statement; None for one that fails only when it runs."""
PLAIN = FileFormat("json", "uncompressed", 1 << 30)


def query(sql: str) -> Query:
    return Query(sql, "s", FIELDS, "2026-11-29T12:00:00.5")


def chunks() -> list[RowChunk]:
    """Each row in a frame of its own."""
    return [RowChunk(json.dumps(row, separators=(",", ":")).encode() + b"\n", 1) for row in ROWS]


async def transformed(engine: SqlEngine, sql: str) -> tuple[Path, Transformed, list[Any]]:
    """The file of a statement over the rows, and the rows that are not in it."""
    drops: list[Any] = []
    running = Transformation(engine, query(sql), PLAIN, "result", lambda: iter(chunks()))
    path, done = await running.run(lambda *drop: drops.append(drop))
    return path, done, drops


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The rows of every statement, or its error, from one engine."""
    found: dict[str, Any] = {}

    async def run_all() -> None:
        engine = SqlEngine(tmp_path_factory.mktemp("sql"))
        for sql in (*STATEMENTS, *REFUSED):
            try:
                await engine.describe(query(sql))
                path, done, _ = await transformed(engine, sql)
            except SqlEngineError as error:
                found[sql] = error
            else:
                rows = [json.loads(line) for line in path.read_text().splitlines()]
                assert done.rows == len(rows)
                found[sql] = rows
        await engine.close()

    anyio.run(run_all)
    return found


@pytest.mark.parametrize("sql", STATEMENTS)
def test_statements(results, sql):
    """A statement gives the documented rows, in the order of the stream."""
    found = results[sql]
    assert not isinstance(found, Exception), found
    assert [next(iter(row.values())) for row in found] == STATEMENTS[sql]


@pytest.mark.parametrize("sql", REFUSED)
def test_refused_statements(results, sql):
    """A statement that a pipeline cannot run is refused with the reason, in one line."""
    error = results[sql]
    assert isinstance(error, SqlEngineError)
    assert "\n" not in str(error)
    assert (REFUSED[sql] or "JSONPath") in str(error)


@pytest.mark.anyio
async def test_the_engine_starts_again_after_its_end(tmp_path: Path):
    """A request after the process has been killed gets a new process; one during it fails."""
    engine = SqlEngine(tmp_path / "sql")
    await engine.describe(query("SELECT n FROM s"))
    assert engine._process is not None
    first = engine._process.pid
    engine._process.kill()
    await engine._process.wait()
    columns = await engine.describe(query("SELECT n, name FROM s"))
    assert [(each.name, each.type, each.nullable) for each in columns] == [
        ("n", "int64", False),
        ("name", "string", True),
    ]
    assert engine._process.pid != first
    await engine.close()


@pytest.mark.anyio
async def test_an_error_among_the_rows_costs_its_row_only(tmp_path: Path):
    """The other rows are there in order, and the next statement is answered right."""
    engine = SqlEngine(tmp_path / "sql")
    path, done, drops = await transformed(engine, "SELECT 1 / (n - 1) AS x FROM s")
    assert (done.rows, path.read_text()) == (2, '{"x":0}\n{"x":0}\n')
    assert [(number, json.loads(line)["n"], reason) for number, line, reason, _ in drops] == [
        (0, 1, "sql_error")
    ]
    assert "Divide by zero" in drops[0][3]
    path, done, drops = await transformed(engine, "SELECT n FROM s")
    assert (done.rows, path.read_text()) == (3, '{"n":1}\n{"n":-2}\n{"n":30}\n')
    assert drops == []
    await engine.close()


@pytest.mark.anyio
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT starts_with(name, 'A') AS a, 1 / (n - 1) AS x FROM s",
        "SELECT pi() AS p, make_array(n) AS l, 1 / (n - 1) AS x FROM s WHERE n <> -2",
    ],
)
async def test_an_error_costs_no_row_for_a_column_without_nulls(tmp_path: Path, sql: str):
    """DataFusion's rows are typed more strictly than its plan; the rows around an error stay."""
    engine = SqlEngine(tmp_path / "sql")
    path, done, drops = await transformed(engine, sql)
    expected = 1 if "WHERE" in sql else 2
    assert (done.rows, len(path.read_text().splitlines())) == (expected, expected)
    assert [number for number, *_ in drops] == [0]
    assert "Divide by zero" in drops[0][3]
    await engine.close()


@pytest.mark.anyio
async def test_a_folder_may_have_any_name(tmp_path: Path):
    """Rows are read in a folder whose name has patterns and escapes of URLs."""
    engine = SqlEngine(tmp_path / "a [b]? {c,d} *%20#é" / "sql")
    path, done, drops = await transformed(engine, "SELECT n FROM s")
    assert (done.rows, path.read_text(), drops) == (3, '{"n":1}\n{"n":-2}\n{"n":30}\n', [])
    await engine.close()


@pytest.mark.anyio
async def test_a_disk_without_room_for_the_rows_is_one_line(tmp_path: Path):
    """The error names the file and the cause; the next window is transformed."""
    engine = SqlEngine(tmp_path / "sql")
    await engine.describe(query("SELECT n FROM s"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, before[1]))
    try:
        with pytest.raises(
            RunError, match=r"sql/rows/result\.0: cannot write rows .*: File too large"
        ):
            await transformed(engine, "SELECT n FROM s")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    path, done, drops = await transformed(engine, "SELECT n FROM s")
    assert (done.rows, drops) == (3, [])
    path.unlink()
    await engine.close()
