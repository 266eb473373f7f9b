"""The tables of isolation.md in docs/ are those that the tests check, no more and no less."""

import re
from itertools import takewhile
from pathlib import Path

from edgesim.jail.calls import CALLS
from tests.conformance import iceberg_attacks
from tests.conformance.sql_attacks import ROWS, STATEMENTS
from tests.isolation import javascript_table
from tests.isolation.table import ATTACKS, IMPORT_WALKS, WALKS

DOCS = Path(__file__).parents[2] / "docs" / "explanation" / "isolation.md"
MARK = "| An invocation that "


def _rows(heading: str) -> list[str]:
    """Return the rows of the table whose header begins with ``heading``."""
    lines = DOCS.read_text().splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(heading))
    return list(takewhile(lambda line: line.startswith("|"), lines[start + 2 :]))


def test_docs_carry_the_table():
    """isolation.md has each row of the table, word for word, and no other."""
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in _rows(MARK)]
    assert rows == [(each.what, each.process, each.warm, each.inline) for each in ATTACKS]


def test_docs_carry_the_walks():
    """isolation.md has each walk, word for word, and no other."""
    rows = [line.strip("| ") for line in _rows("| A search that begins with ")]
    assert rows == [*WALKS.values(), *IMPORT_WALKS.values()]


def test_docs_carry_the_attacks_of_javascript():
    """isolation.md has each kind of attack on JavaScript Workers, word for word, and no other."""
    rows = _rows("| A JavaScript invocation that ")
    found = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in rows]
    assert found == [(each.what, each.process, each.warm) for each in javascript_table.ATTACKS]


def test_every_attack_of_javascript_is_in_the_table():
    """The attacking Worker has no attack that no row names, and no row names one that is not."""
    source = (Path(__file__).parent / "attacker" / "attacker.js").read_text()
    named = [name for each in javascript_table.ATTACKS for name in each.names.split()]
    assert sorted(named) == sorted(re.findall(r'^  "([a-z0-9-]+)":', source, re.MULTILINE))


def test_docs_carry_the_attacks_on_sql():
    """isolation.md has each attack of a row or a statement, with its outcome, and no other."""
    expected = [f"| a row: {each} | its row is dropped (`{ROWS[each][2]}`) |" for each in ROWS]
    expected += [f"| a statement: {each} | refused at the start |" for each in STATEMENTS]
    assert _rows("| An attack on the SQL process ") == expected


def test_docs_carry_the_attacks_on_tables():
    """isolation.md has each attack on the files of an Iceberg table, and no other."""
    expected = [
        f"| {each} | the sink is failing, its rows wait |" for each in iceberg_attacks.ATTACKS
    ]
    assert _rows("| An attack on the files of a table ") == expected


def test_no_attack_stands_twice():
    """Attack names are unique."""
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)


def test_docs_carry_the_reason_of_each_system_call():
    """isolation.md has the reason for each allowed call, word for word, and no other."""
    found: dict[str, str] = {}
    for line in _rows("| System calls "):
        calls, reason = (cell.strip() for cell in line.strip("|").split("|"))
        found |= dict.fromkeys((name.strip("` ") for name in calls.split(",")), reason)
    assert found == {name: call.reason for name, call in CALLS.items()}
