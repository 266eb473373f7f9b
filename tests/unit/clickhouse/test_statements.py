"""Splitting and classifying SQL with quotes and comments."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesim.clickhouse.statements import (
    as_insert,
    kind,
    named,
    quoted,
    reads_only,
    setting,
    single,
    split,
    table_of,
    trailing_format,
)
from edgesim.errors import ClickHouseError


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("SELECT 1; SELECT 2", ["SELECT 1", "SELECT 2"]),
        ("SELECT ';' ;;\n ; -- only; a comment\n", ["SELECT ';'"]),
        ('SELECT `a;b` /* ; */ FROM "t;"', ['SELECT `a;b` /* ; */ FROM "t;"']),
        (r"SELECT 'it''s; \'; fine'; SELECT 2", [r"SELECT 'it''s; \'; fine'", "SELECT 2"]),
        ("", []),
    ],
)
def test_split(script, expected):
    """Statements end at semicolons outside quotes and comments."""
    assert split(script) == expected


@given(st.text())
def test_any_text_can_be_quoted(text):
    """Any text can be quoted as one string literal or identifier."""
    assert split(f"SELECT {quoted(text)}") == [f"SELECT {quoted(text)}".strip()]
    assert kind(f"SELECT {quoted(text)}") == "SELECT"
    assert trailing_format(f"SELECT {quoted(text)} FORMAT CSV") == "CSV"
    assert split(f"USE {named(text)}") == [f"USE {named(text)}"]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("INSERT INTO t FORMAT CSV", "INSERT INTO t\n{}\n\nFORMAT CSV"),
        ("INSERT INTO t (a) VALUES (1)", "INSERT INTO t (a)\n{}\n\nFORMAT Values"),
        (
            "INSERT INTO t -- c\nSETTINGS a = 1 -- d\nFORMAT TSV",
            "INSERT INTO t -- c\n\n{}\nSETTINGS a = 1 -- d\nFORMAT TSV",
        ),
        (
            "INSERT INTO settings (settings) SETTINGS a = 1 VALUES",
            "INSERT INTO settings (settings) \n{}\nSETTINGS a = 1\nFORMAT Values",
        ),
    ],
)
def test_an_insert_that_reads_a_file(sql, expected):
    """FROM INFILE is placed before SETTINGS, as ClickHouse's grammar requires."""
    insert = as_insert(sql)
    assert insert is not None
    source = "FROM INFILE '/dev/fd/3' COMPRESSION 'gzip'"
    assert insert.from_file("/dev/fd/3", "gzip") == expected.format(source)


@pytest.mark.parametrize(
    ("sql", "reads"),
    [
        ("SELECT 1", True),
        ("-- c\n(SELECT 1)", True),
        ("WITH 1 AS x SELECT x", True),
        ("WITH 1 AS x INSERT INTO t SELECT x", False),
        ("WITH y AS (SELECT 'INSERT') SELECT * FROM y", True),
        ("INSERT INTO t VALUES (1)", False),
        ("DROP TABLE t", False),
        ("SYSTEM STOP MERGES", False),
        ("", False),
    ],
)
def test_statements_that_only_read(sql, reads):
    """Only a statement that cannot write counts as reading."""
    assert reads_only(sql) is reads


@pytest.mark.parametrize(
    ("sql", "head", "wanted", "data"),
    [
        ("INSERT INTO t (a) FORMAT JSONEachRow\n{}", "INSERT INTO t (a)", "JSONEachRow", "{}"),
        ("insert into t values (1)", "insert into t", "Values", " (1)"),
        ("INSERT INTO t (values, format)", "INSERT INTO t (values, format)", "", ""),
        ("INSERT INTO db.`a;b` FORMAT CSV\n'", "INSERT INTO db.`a;b`", "CSV", "'"),
        ("INSERT INTO format FORMAT CSV\n;", "INSERT INTO format", "CSV", ";"),
        ("INSERT INTO t -- FORMAT x\nFORMAT TSV 1", "INSERT INTO t -- FORMAT x", "TSV", "1"),
        ("INSERT INTO t SETTINGS a = 1 FORMAT TSV", "INSERT INTO t SETTINGS a = 1", "TSV", ""),
        ("INSERT INTO FUNCTION f('x') (a) VALUES", "INSERT INTO FUNCTION f('x') (a)", "Values", ""),
    ],
)
def test_insert_and_its_data(sql, head, wanted, data):
    """An INSERT is split into its head, its format and the data that follows."""
    insert = as_insert(sql)
    assert insert is not None
    assert (insert.head, insert.format, sql[insert.data_at :]) == (head, wanted, data)


@pytest.mark.parametrize(
    "sql",
    ["SELECT 1 FORMAT JSON", "INSERT INTO t SELECT 1 FORMAT JSON", "INSERT INTO t FROM INFILE 'x'"],
)
def test_statements_that_bring_no_data(sql):
    """A SELECT, INSERT ... SELECT and FROM INFILE carry no inline data."""
    assert as_insert(sql) is None


@pytest.mark.parametrize(
    ("sql", "wanted"),
    [
        ("SELECT 1", None),
        ("SELECT 1 FORMAT CSV -- JSON", "CSV"),
        ("SELECT 1 FORMAT CSV SETTINGS max_threads = 1", "CSV"),
        ("SELECT 'FORMAT x'", None),
        ("SELECT format FROM t", None),
        ("SELECT 1 AS format", None),
        ("SELECT format('{}', 1)", None),
    ],
)
def test_the_format_of_the_answer(sql, wanted):
    """Only a FORMAT clause at the end sets the reply's format."""
    assert trailing_format(sql) == wanted


@pytest.mark.parametrize("sql", ["", " ;; -- nothing", "SELECT 1; SELECT 2", "SELECT 'open"])
def test_not_one_statement(sql):
    """No statement, several, or an unterminated one is a syntax error."""
    with pytest.raises(ClickHouseError) as caught:
        single(sql)
    assert caught.value.code == 62


def test_settings_are_quoted():
    """A setting's value is quoted; a name that is no identifier is an error."""
    assert setting("a", "1' , b = '2") == r"a = '1\' , b = \'2'"
    for name in ("", "a b", "a=1, b"):
        with pytest.raises(ClickHouseError):
            setting(name, "1")


def test_input_is_replaced():
    """Only a call of input() is replaced, not the same text in a literal; its structure is kept."""
    sql = "INSERT INTO t SELECT a FROM input( 'a Int8' ) WHERE a != 'input(x)' FORMAT TSV\n1"
    insert = as_insert(sql)
    assert insert is not None
    assert (insert.structure, insert.format, sql[insert.data_at :]) == ("'a Int8'", "TSV", "1")
    assert (
        insert.reading("file('f')") == "INSERT INTO t SELECT a FROM file('f') WHERE a != 'input(x)'"
    )


@pytest.mark.parametrize(
    ("sql", "table"),
    [
        ("INSERT INTO events FORMAT JSONEachRow", "events"),
        ("insert into table events (id, day) values", "events"),
        ("INSERT INTO game . events SETTINGS async_insert = 1 FORMAT CSV", "game.events"),
        ('INSERT INTO `a b`."c" (x) FORMAT CSV', '`a b`."c"'),
        ("-- INSERT INTO no\nINSERT /* INTO no */ INTO yes VALUES", "yes"),
        ("INSERT events VALUES", "events"),
    ],
)
def test_table_of_an_insert(sql, table):
    """The table is read as SQL without spaces and comments, whatever clauses follow."""
    insert = as_insert(sql)
    assert insert is not None
    assert table_of(insert) == table
