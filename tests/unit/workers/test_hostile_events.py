"""Values of one client that a later stage could not carry cost no other event."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.workers.test_event import GOOD, event, read
from tests.unit.workers.test_workers import trace, traces

ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates too
HALF = "\ud800"


def test_half_a_character_is_replaced():
    """A lone surrogate, which UTF-8 cannot encode, is U+FFFD in values, keys and moved keys."""
    [clean] = read(GOOD | {"player_id": f"p{HALF}", "props": {f"k{HALF}": [HALF]}, HALF: 1})
    assert clean["player_id"] == "p\ufffd"
    assert clean["props"] == {"k\ufffd": ["\ufffd"], "\ufffd": 1}


def test_whole_characters_stay():
    """A pair of surrogate escapes is one character and is kept."""
    [clean] = event.read_events(
        b'{"event":"chat","player_id":"p","ts":1,"props":{"text":"\\ud83d\\ude00 \\u00e9"}}', 2
    )
    assert clean["props"] == {"text": "\U0001f600 é"}


@given(ANY_TEXT)
def test_cleaned_text_can_be_written_and_shown(text):
    """Any cleaned text can be encoded and has no control characters."""
    [clean] = read(GOOD | {"props": {"text": text}})
    left = clean["props"]["text"]
    left.encode()
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in left)


@pytest.mark.parametrize(
    ("number", "kept"),
    [
        (2**53 - 1, 2**53 - 1),
        (-(2**53) + 1, -(2**53) + 1),
        (2**53, "9007199254740992"),
        (-(10**30), "-1" + "0" * 30),
        (True, True),
    ],
)
def test_an_integer_beyond_javascript_becomes_a_string(number, kept):
    """An integer beyond JavaScript's safe range becomes a string with all its digits."""
    [clean] = read(GOOD | {"props": {"ids": [number]}})
    assert clean["props"]["ids"] == [kept]
    assert type(clean["props"]["ids"][0]) is type(kept)


@pytest.mark.parametrize(
    "bad",
    [
        '{"n":NaN}',
        '{"n":-Infinity}',
        '{"n":1e999}',
        '{"n":9007199254740992}',
        '{"t":"\\ud800"}',
        "[" * 5_000,
    ],
)
def test_a_line_that_no_pipeline_takes_goes_to_errors(bad):
    """NaN, huge numbers, lone surrogates and deep nesting go to errors; other lines are kept."""
    events, errors = traces.read_trace(trace([f"PIPE_ME {bad}"], ['PIPE_ME {"n":1.5}']))
    assert [record for record, _ in events] == [{"n": 1.5}]
    assert [record["reason"] for record, _ in errors] == ["unparsable_log"]
    json.dumps(errors[0][0], ensure_ascii=False).encode()


def test_half_a_character_in_a_broken_line():
    """Characters that a Pipeline could not write are replaced in the recorded raw line."""
    _, [(record, size)] = traces.read_trace(trace([f"PIPE_ME broken {HALF} é"]))
    assert record["raw"] == "PIPE_ME broken ? é"
    assert size >= len(json.dumps(record, ensure_ascii=False).encode())


def test_a_null_of_javascript_is_no_text():
    """A console.log of a value that is no string costs neither its line nor the others."""
    jsnull = type("JsNull", (), {"__bool__": lambda _: False})()
    events, errors = traces.read_trace(
        trace([jsnull], ["PIPE_ME", jsnull, '{"n":1}'], ['PIPE_ME {"n":2}'])
    )
    assert [record for record, _ in events] == [{"n": 1}, {"n": 2}]
    assert errors == []
