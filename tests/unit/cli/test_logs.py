"""Terminal logs: text from Workers and clients cannot control the terminal."""

import pytest

from edgesim.cli.logs import _Renderer

HOSTILE = [
    *("\x1b[2J", "a \x1b]0;title\x07", "\x9b31m", "\x08\x08", "a\rb", "\u202ecod", "\u2066a b"),
    "=\x1b]52;c;cHduZWQ=\x07",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("field", ["event", "text", "exception"])
def test_control_characters_are_shown_by_their_codes(field, text):
    """Control characters are escaped in every field; only the renderer's own colours remain."""
    plain, shown = (
        _Renderer(terminal=True)(None, "info", {"event": "x", "exception": "y", field: each})
        for each in (text.encode("ascii", "ignore").decode().replace("\x1b", ""), text)
    )
    for mark in "\x07\x08\x9b\r\u202e\u2066":
        assert mark not in shown
    assert shown.count("\x1b") == plain.count("\x1b")


def test_lines_of_an_exception_and_other_letters_stay():
    """Newlines and tabs of an exception, and printable non-ASCII text, are not escaped."""
    text = "Traceback:\n\tValueError: \xe9 \u6f22 \U0001f600"
    shown = _Renderer(terminal=True)(None, "error", {"event": "x", "exception": text})
    assert shown.endswith(text)
