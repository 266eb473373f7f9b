"""The SQL of Analytics Engine: what it is in ClickHouse's SQL, and what is refused."""

import pytest

from edgesim.analytics.dialect import translated
from edgesim.errors import ClickHouseError

DATASETS = ["weather", "a-b"]
NOW = 1_767_225_600


@pytest.mark.parametrize(
    ("sql", "there", "form"),
    [
        ("SELECT 1;", "SELECT 1", "JSON"),
        ("select blob1 from weather", "select blob1 from `analytics_engine`.`weather`", "JSON"),
        (
            "SELECT * FROM \"a-b\" WHERE timestamp > NOW() - INTERVAL '1' DAY format jsoneachrow",
            (
                "SELECT * FROM `analytics_engine`.`a-b` WHERE timestamp > "
                "toDateTime(1767225600, 'Etc/UTC') - INTERVAL '1' DAY"
            ),
            "JSONEachRow",
        ),
        (
            (
                "SELECT quantileWeighted(0.5, double1, _sample_interval), "
                "quantileExactWeighted(0.9)(double1, _sample_interval) FROM weather"
            ),
            (
                "SELECT quantileExactWeighted(0.5)( double1, _sample_interval), "
                "quantileExactWeighted(0.9)(double1, _sample_interval) "
                "FROM `analytics_engine`.`weather`"
            ),
            "JSON",
        ),
        (
            (
                "SELECT length(toLower(blob1)), extract(HOUR FROM timestamp), "
                "position('x' IN blob1) FROM (SELECT * FROM weather) AS w "
                "WHERE blob1 IN ('a', 'b') LIMIT ALL"
            ),
            (
                "SELECT lengthUTF8(lowerUTF8(blob1)), extract(HOUR FROM timestamp), "
                "position('x' IN blob1) FROM (SELECT * FROM `analytics_engine`.`weather`) AS w "
                "WHERE blob1 IN ('a', 'b') "
            ),
            "JSON",
        ),
        ("SHOW TIMEZONE FORMAT TabSeparated", "SELECT 'Etc/UTC' AS timezone", "TabSeparated"),
    ],
)
def test_a_statement_is_translated(sql, there, form):
    """Datasets become tables; functions with another name, now() and LIMIT ALL are replaced."""
    found, found_form = translated(sql, DATASETS, NOW)
    assert (found.rstrip(), found_form) == (there.rstrip(), form)


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("", "Empty query"),
        ("SELECT 1; SELECT 2", "Multi-statements"),
        ("SELECT 'open", "position 8 is not closed"),
        ("INSERT INTO weather VALUES (1)", "begins with SELECT or SHOW"),
        ("WITH 1 AS x SELECT x", "begins with SELECT or SHOW"),
        ("SHOW DATABASES", "SHOW is followed by"),
        ("SELECT 1 FORMAT CSV", "FORMAT CSV is not one of"),
        ("SELECT CASE WHEN 1 THEN 2 END", "CASE is not in the SQL"),
        ("SELECT 1 SETTINGS readonly = 0", "SETTINGS is not in the SQL"),
        ("SELECT 1 FROM weather JOIN weather", "JOIN is not in the SQL"),
        ("SELECT {a:String}", "{ is not in the SQL"),
        ("SELECT sleep(1)", "sleep is not a function"),
        ("SELECT `file`('x')", "`file` is not a function"),
        ("SELECT 1 FROM nope", "there is no dataset 'nope'; with data points: a-b, weather"),
        ("SELECT 1 FROM", "FROM is followed by a dataset"),
        ("SELECT 1 FROM system.one", "reads one dataset"),
        ("SELECT 1 FROM url('http://x')", "reads one dataset"),
        ("SELECT 1 FROM weather w, system.one", "reads one dataset"),
        ("SELECT 1 FROM (SELECT 1 FROM weather) AS w, weather", "reads one dataset"),
        ("SELECT extract(SELECT 1 FROM system.one)", "reads one dataset"),
        ("SELECT 1 IN system.one", "IN is followed by a list"),
        ("SELECT 1 IN (`one`)", "IN is followed by a list"),
        ("SELECT 1 WHERE 1 IN (SELECT 1 FROM system.one)", "reads one dataset"),
    ],
)
def test_a_statement_is_refused(sql, problem):
    """One line names the cause; no statement reads anything but datasets."""
    with pytest.raises(ClickHouseError) as caught:
        translated(sql, DATASETS, NOW)
    assert problem in caught.value.message
    assert "\n" not in caught.value.message
