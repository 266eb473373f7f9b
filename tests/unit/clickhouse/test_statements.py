"""Cutting SQL: quotes and comments never fool it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesim.clickhouse.statements import (
    as_insert,
    cut_format,
    kind,
    quoted,
    replace_input,
    split,
    with_settings,
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
    """A quoted value stays one string literal, whatever is in it."""
    assert split(f"SELECT {quoted(text)}") == [f"SELECT {quoted(text)}".strip()]
    assert kind(f"SELECT {quoted(text)}") == "SELECT"
    assert cut_format(f"SELECT {quoted(text)} FORMAT CSV")[1] == "CSV"


def test_insert_and_its_data():
    """The head, the format, and what follows it."""
    insert = as_insert("INSERT INTO t (a) FORMAT JSONEachRow\n{}")
    assert insert is not None
    assert (insert.head, insert.format, insert.inline) == ("INSERT INTO t (a)", "JSONEachRow", "{}")
    assert as_insert("INSERT INTO t VALUES ('FORMAT x')") is None
    assert as_insert("SELECT 1 FORMAT JSON") is None


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1", "SELECT 1 SETTINGS a = 'b'"),
        ("SELECT 1 SETTINGS x = 1", "SELECT 1 SETTINGS x = 1, a = 'b'"),
        ("INSERT INTO t (c)", "INSERT INTO t (c) SETTINGS a = 'b'"),
        ("INSERT INTO t SELECT 1", "INSERT INTO t SETTINGS a = 'b' SELECT 1"),
        ("INSERT INTO t SETTINGS x=1 VALUES (1)", "INSERT INTO t SETTINGS a = 'b', x=1 VALUES (1)"),
        ("SHOW TABLES", "SHOW TABLES"),
    ],
)
def test_settings_stand_where_the_statement_has_them(sql, expected):
    """After SETTINGS if there is one, else before the rows or at the end."""
    assert with_settings(sql, {"a": "b"}) == expected


def test_settings_that_could_not_be_honoured_are_refused():
    """A statement without a place for settings does not lose them silently."""
    with pytest.raises(ClickHouseError, match="DROP"):
        with_settings("DROP TABLE t", {"a": "b"})


def test_input_is_replaced():
    """Only a real input(), with its structure kept."""
    source = "file('f', 'F', {structure})"
    assert replace_input("SELECT 'input(x)'", source) is None
    assert (
        replace_input("INSERT INTO t SELECT a FROM input( 'a Int8' ) WHERE a", source)
        == "INSERT INTO t SELECT a FROM file('f', 'F', 'a Int8') WHERE a"
    )
