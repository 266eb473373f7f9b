"""The receiver's validation and normalisation of events."""

import contextlib
import importlib.util
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.processes import WORKERS


def load(worker: str, module: str) -> Any:
    spec = importlib.util.spec_from_file_location(module, WORKERS / worker / f"{module}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


event = load("receiver", "event")
NOW = 1_767_225_600_000
GOOD = {"event": "kill", "player_id": "p", "ts": NOW}


def read(value: Any) -> Any:
    return event.read_events(json.dumps(value).encode(), NOW)


def refused(value: Any) -> str:
    with pytest.raises(event.InvalidError) as caught:
        read(value)
    return str(caught.value.detail)


def test_unknown_keys_move_under_props_without_clobbering():
    """A key that is not in the schema moves under props, unless props has it already."""
    [clean] = read(GOOD | {"damage": 5, "score": 1, "props": {"score": 2}})
    assert clean == GOOD | {"props": {"score": 2, "damage": 5}}


def test_control_characters_are_taken_out():
    """Control characters are removed from every string and key, at any depth."""
    [clean] = read(GOOD | {"player_id": "a\u0000\nb", "props": {"k\u0007": ["x\u0085y"]}})
    assert clean["player_id"] == "ab"
    assert clean["props"] == {"k": ["xy"]}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"event": "no spaces"}, "event"),
        ({"event": "e" * 65}, "event"),
        ({"player_id": ""}, "player_id"),
        ({"player_id": "\u0001"}, "player_id"),
        ({"player_id": "p" * 129}, "player_id"),
        ({"ts": True}, "ts"),
        ({"ts": 1.5}, "ts"),
        ({"ts": NOW + 86_400_001}, "ts"),
        ({"ts": -1}, "ts"),
        ({"region": 5}, "region"),
        ({"props": []}, "props"),
        ({"props": {"a": [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}}, "props"),
    ],
)
def test_the_refusal_names_the_field(change, field):
    """The refusal names the field, also inside an array."""
    assert field in refused(GOOD | change)
    assert refused([GOOD, GOOD | change]).startswith("[1].")


@pytest.mark.parametrize("text", ['{"a": NaN}', "[Infinity]", "{} x", "", "\ufeff{}", "[" * 5_000])
def test_what_is_not_json(text):
    """NaN, trailing text, a byte order mark and excessive nesting are invalid_json."""
    with pytest.raises(event.InvalidError) as caught:
        event.read_events(text.encode(), NOW)
    assert caught.value.error == "invalid_json"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@settings(max_examples=300)
@given(JSON | st.fixed_dictionaries({}, optional=dict.fromkeys([*GOOD, "props", "region"], JSON)))
def test_any_json_is_an_event_or_a_refusal(value):
    """Any JSON is refused or becomes events that are equal after encoding as a line of ASCII."""
    try:
        found = read(value)
    except event.InvalidError:
        return
    for clean in found:
        line = event.to_line(clean)
        assert line.isascii()
        assert line.isprintable()
        assert json.loads(line) == clean


@settings(max_examples=300)
@given(st.binary())
def test_any_bytes_are_events_or_a_refusal(body):
    """Any bytes are events or an InvalidError."""
    with contextlib.suppress(event.InvalidError):
        assert event.read_events(body, NOW)
