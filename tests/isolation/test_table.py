"""The documentation promises what the tests hold, no more and no less."""

from pathlib import Path

from tests.isolation.table import ATTACKS

DOCS = Path(__file__).parents[2] / "docs" / "isolation.md"
MARK = "| An invocation that "


def test_docs_carry_the_table():
    """docs/isolation.md has each row of the table, word for word, and no other."""
    lines = DOCS.read_text().splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(MARK))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(tuple(cell.strip() for cell in line.strip("|").split("|")))
    assert rows == [(each.what, each.process, each.warm, each.inline) for each in ATTACKS]


def test_no_attack_stands_twice():
    """One attack, one row, one name."""
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
