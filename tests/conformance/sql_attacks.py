"""Attacks on the SQL engine by rows and statements.  isolation.md in docs/ has the same table."""

from typing import Any

from edgesim.config.pipelines import Field

FIELDS = [
    Field("int64", "n", required=True),
    Field("string", "t"),
    Field("json", "j"),
    Field("float64", "f"),
    Field("timestamp", "at"),
]
ENDLESS = "levenshtein(repeat(t, 1000), repeat(t, 1001))"
"""Minutes of CPU time for a ``t`` of some hundred characters."""

ROWS: dict[str, tuple[str, dict[str, Any], str]] = {
    "a cast": ("CAST(t AS INT)", {"t": "no number"}, "sql_error"),
    "a division by zero": ("1 / (n - 2)", {}, "sql_error"),
    "a guarded division": ("CASE WHEN n = 2 THEN 1 / (n - 2) ELSE 0 END", {}, "sql_error"),
    "an overflow": ("abs(arrow_cast(t, 'Int64'))", {"t": "-9223372036854775808"}, "sql_error"),
    "a number that does not fit": ("arrow_cast(f, 'Int8')", {"f": 300}, "sql_error"),
    "not a number": ("arrow_cast(1.0 / f, 'Int64')", {"f": 0.0}, "sql_error"),
    "a decimal": (
        "arrow_cast(t, 'Decimal128(38,10)') * arrow_cast(t, 'Decimal128(38,10)')",
        {"t": "9999999999999999999999999999"},
        "sql_error",
    ),
    "base64": ("decode(t, 'base64')", {"t": "!!!"}, "sql_error"),
    "half a character": ("chr(arrow_cast(f, 'Int64'))", {"f": 0xD800}, "sql_error"),
    "a time out of range": ("to_timestamp(arrow_cast(f, 'Int64'))", {"f": 9e18}, "sql_error"),
    "an interval": ("at + interval '255000 year'", {"at": "9999-12-31T23:59:59Z"}, "sql_error"),
    "a time zone": ("to_timestamp(t)", {"t": "2020-01-01T00:00:00+99:99"}, "sql_error"),
    "a format of times": (
        "to_char(at, t)",
        {"at": "2020-01-01T00:00:00Z", "t": "%9999999999d"},
        "sql_error",
    ),
    "an index": ("make_array(1, 2)[arrow_cast(f, 'Int64')]", {"f": -(2**63)}, "sql_error"),
    "a slice": (
        "array_slice(make_array(1), 1, 1, arrow_cast(f, 'Int64'))",
        {"f": -(2**63)},
        "sql_error",
    ),
    "a regular expression that grows": (
        "regexp_like('a', t)",
        {"t": "((((a{100}){100}){100}){100}){100}"},
        "sql_error",
    ),
    "a JSONPath": ("extract_json(j, t)", {"j": {}, "t": "$[?"}, "sql_error"),
    "a range": ("range(0, arrow_cast(f, 'Int64'))", {"f": 1e12}, "sql_error"),
    "an array": ("array_repeat('abcd', arrow_cast(f, 'Int64'))", {"f": 4e9}, "sql_error"),
    "a text of 5 GB": ("repeat('x', arrow_cast(f, 'Int64'))", {"f": 5e9}, "sql_error"),
    "a text of 900 MB": ("repeat('x', arrow_cast(f, 'Int64'))", {"f": 9e8}, "memory_limit"),
    "the same, which is not shown": (
        "octet_length(lpad('x', arrow_cast(f, 'Int64')))",
        {"f": 2e9},
        "memory_limit",
    ),
    "a replacement": (
        "octet_length(replace(repeat(t, 100000), 'a', repeat(t, 10000)))",
        {"t": "a"},
        "memory_limit",
    ),
    "pieces of a text": (
        "array_length(string_to_array(repeat(t, 1000000), ','))",
        {"t": "," * 500},
        "memory_limit",
    ),
    "unnest": ("unnest(range(0, arrow_cast(f, 'Int64')))", {"f": 2e7}, "memory_limit"),
    "a replacement by a regular expression": (
        "octet_length(regexp_replace(repeat(t, 100000), 'a', repeat(t, 10000), 'g'))",
        {"t": "a"},
        "memory_limit",
    ),
    "an endless function": (ENDLESS, {"t": "ab" * 500}, "time_limit"),
}
"""Name -> an expression, the row that attacks with it, the reason for which that row is dropped."""

STATEMENTS: dict[str, str] = {
    "DDL": "CREATE TABLE x AS SELECT * FROM s",
    "an external table": "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
    "DML": "INSERT INTO s SELECT * FROM s",
    "a copy": "COPY (SELECT * FROM s) TO '/tmp/x.csv'",
    "a setting": "SET datafusion.execution.batch_size = 1",
    "settings": "SHOW ALL",
    "a plan with a run": "EXPLAIN ANALYZE SELECT n FROM s",
    "a prepared statement": "PREPARE p AS SELECT n FROM s",
    "a file as a table": "SELECT * FROM '/etc/passwd'",
    "a file by a function": "SELECT * FROM read_parquet('/etc/passwd')",
    "a table function": "SELECT * FROM generate_series(1, 5)",
    "a list of values": "SELECT n FROM (VALUES (1)) AS v(n)",
    "the information schema": "SELECT * FROM information_schema.tables",
    "a variable": "SELECT @@HOME AS x FROM s",
    "two statements": "SELECT n FROM s; DROP TABLE s",
    "a constant of 9 GB": "SELECT octet_length(repeat('x', 9000000000)) AS x FROM s",
    "a constant of 1 GB": "SELECT octet_length(repeat('x', 1000000000)) AS x FROM s",
    "a constant that never ends": f"SELECT {ENDLESS.replace('t,', repr('ab' * 500) + ',')} AS x "
    "FROM s",
    "20,000 parentheses": f"SELECT {'(' * 20_000}n{')' * 20_000} AS x FROM s",
    "100,000 additions": f"SELECT n{' + n' * 100_000} AS x FROM s",
    "2,000 subqueries": f"SELECT n FROM {'(SELECT n FROM ' * 2_000}s{')' * 2_000}",
}
