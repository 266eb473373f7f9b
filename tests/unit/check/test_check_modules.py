"""Findings of ``edgesim check`` about own modules that have the name of a library module."""

import pytest

from tests.unit.check.test_check import CLEAN, found, project


@pytest.mark.parametrize(
    ("statement", "own"),
    [
        ("import calendar", "calendar.py"),
        ("from queue import Queue", "queue.py"),
        ("import logging.handlers", "logging/__init__.py"),
    ],
)
def test_an_own_module_that_is_never_imported(statement, own, tmp_path):
    """A file that the library's module hides is a warning at the import, and is not read."""
    folder = project(tmp_path, f"{statement}\n{CLEAN}")
    (folder / "w" / own).parent.mkdir(exist_ok=True)
    (folder / "w" / own).write_text("def (\n")
    (finding,) = found(folder)
    assert (finding.line, finding.level, finding.rule) == (1, "warning", "import")
    assert f"not {own}" in finding.problem
    assert own in finding.cure


@pytest.mark.parametrize("name", ["curses", "pwd", "imp", "shapes"])
def test_an_own_module_with_a_name_that_the_platform_lacks(name, tmp_path):
    """An own module is found where the platform's library has none, and is read."""
    folder = project(tmp_path, f"import {name}\n{CLEAN}")
    (folder / "w" / f"{name}.py").write_text("x = 1\n")
    assert found(folder) == []
    (folder / "w" / f"{name}.py").write_text("def (\n")
    assert {each.rule for each in found(folder)} == {"syntax"}


def test_an_entry_with_a_library_name(tmp_path):
    """The entry itself is reported where the platform would not import it."""
    folder = project(tmp_path, main="select.py")
    (folder / "w" / "w.py").rename(folder / "w" / "select.py")
    (finding,) = found(folder)
    assert (finding.level, finding.rule) == ("error", "loading")
    assert "select.py cannot be the entry" in finding.problem
