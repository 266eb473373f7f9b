"""Statements of pipelines: the stream and the sink that they name, and what is refused."""

import pytest

from edgesim.config.sql_statements import read_statements
from edgesim.config.sql_tokens import SqlError


def test_statements_are_separated_by_semicolons():
    """Each statement has its sink, its stream and the text of its query."""
    first, second = read_statements(
        "INSERT INTO good SELECT id, a;b FROM events".replace("a;b", "'a;b'")
        + ';\n/* and; */ insert into "Bad" select * from events ; ;'
    )
    assert (first.sink, first.stream, first.takes_all) == ("good", "events", False)
    assert first.query == "SELECT id, 'a;b' FROM events"
    assert (second.sink, second.stream, second.takes_all) == ("Bad", "events", True)
    assert second.place == (2, 12)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM s WHERE a IS DISTINCT FROM b",
        "SELECT extract(year FROM at) AS y, substring(a FROM 2) FROM s",
        "SELECT a FROM (SELECT b AS a FROM s WHERE b > 1) AS t WHERE a < 5",
        "WITH x AS (SELECT * FROM s), y AS (SELECT a FROM x) SELECT upper(a) FROM y",
        "SELECT unnest(tags) AS tag FROM s",
        "SELECT * EXCEPT (a) FROM s",
        'SELECT e."group", e.join FROM s e',
        "SELECT 'JOIN' AS a, \"UNION\" FROM s -- LIMIT 5",
        "SELECT greatest(a, b), min_a, a['count'] FROM s",
        "SELECT substring(a FROM 1 FOR 2), connect FROM s",
    ],
)
def test_words_that_only_look_refused(query):
    """Keywords in strings, names, comments and functions are no clauses."""
    [statement] = read_statements(f"INSERT INTO sink {query}")
    assert statement.stream == "s"


@pytest.mark.parametrize(
    ("query", "column", "reason"),
    [
        ("SELECT * FROM a JOIN b ON a.x = b.x", 33, "JOIN"),
        ("SELECT * FROM a, b", 32, "join"),
        ("SELECT x FROM a GROUP BY x", 33, "aggregate"),
        ("SELECT x FROM a HAVING x > 1", 33, "HAVING"),
        ("SELECT count(*) FROM a", 24, "count()"),
        ("SELECT Sum(x) FROM a", 24, "Sum()"),
        (
            "SELECT row_number() OVER () FROM a",
            24,
            "row_number() is not for pipelines: a pipeline has",
        ),
        ("SELECT x FROM a TABLESAMPLE (1)", 33, "every record"),
        ("SELECT x FROM a FOR UPDATE", 33, "locks"),
        ("SELECT x FROM a START WITH x = 1 CONNECT BY y = 1", 50, "CONNECT BY"),
        ("SELECT f(x) OVER (PARTITION BY y) FROM a", 29, "window"),
        ("SELECT x FROM a ORDER BY x", 33, "sorted"),
        ("SELECT x FROM a LIMIT 5", 33, "LIMIT"),
        ("SELECT x FROM a OFFSET 5", 33, "OFFSET"),
        ("SELECT DISTINCT x FROM a", 24, "DISTINCT"),
        ("SELECT x FROM a UNION ALL SELECT x FROM b", 33, "UNION"),
        ("SELECT x FROM a EXCEPT SELECT x FROM b", 33, "EXCEPT"),
        ("SELECT x FROM a WHERE x IN (SELECT y FROM a)", 45, "subquery"),
        ("SELECT (SELECT 1), x FROM a", 25, "subquery"),
        ("SELECT unnest(a), unnest(b) FROM s", 35, "one UNNEST"),
        ("SELECT a FROM s WHERE unnest(b) = 1", 39, "WHERE"),
        ("WITH RECURSIVE x AS (SELECT * FROM s) SELECT * FROM x", 22, "itself"),
        ("SELECT 1", 17, "reads no stream"),
        ("SELECT * FROM", 26, "missing"),
        ("SELECT * FROM range(1, 5)", 31, "name of a stream"),
        ("SELECT x FROM a WHERE x = 'b", 43, "no end"),
        ("SELECT f(x FROM a", 33, "not closed"),
        ("SELECT x) FROM a", 25, "no parenthesis"),
    ],
)
def test_what_pipelines_refuse(query, column, reason):
    """Joins, aggregates, windows and the like are refused at their position, with the reason."""
    with pytest.raises(SqlError) as caught:
        read_statements(f"INSERT INTO out {query}")
    assert caught.value.place == (1, column)
    assert reason in caught.value.problem


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("", (1, 1), "no statement"),
        (" ; -- nothing\n;", (1, 1), "no statement"),
        ("SELECT * FROM s", (1, 1), "INSERT INTO"),
        ("INSERT INTO 5 SELECT * FROM s", (1, 13), "not the name of a sink"),
        ("INSERT INTO a\n(x) SELECT x FROM s", (2, 1), "SELECT or WITH"),
        ("INSERT INTO a VALUES (1)", (1, 15), "SELECT or WITH"),
        ("INSERT INTO a SELECT * FROM s;\n\nDELETE FROM s", (3, 1), "INSERT INTO"),
        ("INSERT INTO a SELECT 1 /* x", (1, 24), "comment has no end"),
    ],
)
def test_what_is_no_statement(text, place, reason):
    """The error has the line and the column of what is wrong."""
    with pytest.raises(SqlError) as caught:
        read_statements(text)
    assert caught.value.place == place
    assert reason in caught.value.problem
