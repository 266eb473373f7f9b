"""The reference page of the commands is the one that the parsers give."""

from tests.docs.commands import PAGE, page


def test_the_page_is_generated_from_the_parsers():
    """docs/reference/commands.md is up to date; else run `python -m tests.docs.commands`."""
    assert PAGE.read_text() == page()


def test_every_argument_has_a_help_text():
    """No argument of any command is listed without its meaning."""
    assert "| None |" not in page()
    assert "|  |" not in page()
