"""Encoding and decoding message bodies."""

import json
import math
import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesim.errors import PlatformError
from edgesim.queues.encoding import content_type_of, decode, encode


def refusal(value, content_type):
    """The error's class and text as a Worker sees them."""
    with pytest.raises(PlatformError) as refused:
        encode(value, content_type)
    return refused.value.name, refused.value.message


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 2, 2**53 - 2)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_json_values_survive_json_and_v8(value):
    """Any JSON value is equal after encoding and decoding, as json and as v8."""
    assert decode(encode(value, "json"), "json") == value
    assert decode(encode(value, "v8"), "v8") == value


@pytest.mark.parametrize(
    ("value", "body"),
    [
        ({"a": [1, None, True], "b": "é"}, '{"a":[1,null,true],"b":"é"}'),
        (None, "null"),
        (1.0, "1"),
        (-0.0, "0"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (0.1, "0.1"),
        (2**53 - 2, "9007199254740990"),
        (math.nan, "null"),
        (-math.inf, "null"),
        (b"ab", '{"0":97,"1":98}'),
        (memoryview(b"ab"), '{"0":97,"1":98}'),
        ({1, 2}, "{}"),
        (ValueError("no"), "{}"),
        (object(), "{}"),
        ({False: 0, 2: "two"}, '{"false":0,"2":"two"}'),
        ("\ud800", '"\\ud800"'),
        ("\u2028\x7f\n", '"\u2028\x7f\\n"'),
    ],
)
def test_json_is_what_json_stringify_writes(value, body):
    """JSON is compact, minimally escaped and has JavaScript's silent conversions."""
    assert encode(value, "json") == body.encode()


@pytest.mark.parametrize(
    "when",
    [
        datetime(2026, 1, 2, 3, 4, 5, 678_999),  # noqa: DTZ001 - naive is UTC in a Worker
        datetime(2026, 1, 2, 3, 4, 5, 678_999, UTC),
        datetime(2026, 1, 2, 5, 4, 5, 678_999, timezone(timedelta(hours=2))),
    ],
)
def test_datetime_is_a_date(when):
    """A datetime becomes an ISO string with Z in JSON, and a datetime in UTC through v8."""
    assert encode({"at": when}, "json") == b'{"at":"2026-01-02T03:04:05.678Z"}'
    back = decode(encode({"at": when}, "v8"), "v8")
    assert back == {"at": datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)}


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"1.0", 1),
        (b"1e3", 1000),
        (b"9007199254740993", 9007199254740992.0),
        (b"1e400", math.inf),
        (b"-0", 0),
        (b'"\\ud83d\\ude00"', "😀"),
    ],
)
def test_json_numbers_are_read_as_javascript_reads_them(body, value):
    """Whole numbers decode as int; a number that a double cannot hold is rounded."""
    found = decode(body, "json")
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "body", [b"", b"{", b"NaN", b"Infinity", b"'a'", b"\xff", b"\xef\xbb\xbf1"]
)
def test_what_is_not_json_is_a_value_error(body):
    """Python's additions to JSON and invalid UTF-8 are a ValueError."""
    with pytest.raises(ValueError):
        decode(body, "json")


@pytest.mark.parametrize("content_type", ["json", "v8"])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((1, 2), "<class 'tuple'> cannot be sent over RPC."),
        (bytearray(b"a"), "<class 'bytearray'> cannot be sent over RPC."),
        (re.compile("a"), "<class 're.Pattern'> cannot be sent over RPC."),
    ],
)
def test_what_the_sdk_refuses_is_refused(value, text, content_type):
    """A tuple, a bytearray or a pattern is a TypeError at any depth."""
    assert refusal(value, content_type) == ("TypeError", text)
    assert refusal({"deep": [value]}, content_type) == ("TypeError", text)


def test_awaitable_is_refused():
    """The error for a coroutine that was not awaited names it."""

    async def forgotten():
        pass

    coroutine = forgotten()
    text = "Awaitable <class 'coroutine'> cannot be sent over RPC."
    assert refusal({"a": coroutine}, "json") == ("TypeError", text)
    coroutine.close()


@pytest.mark.parametrize("value", [2**53 - 1, 2**53, -(2**53), 2**70])
def test_large_int_in_json_is_a_bigint(value):
    """An int that a double cannot hold exactly is refused in JSON, as a BigInt is."""
    assert refusal([value], "json") == ("TypeError", "Do not know how to serialize a BigInt")


def test_circular_value_is_a_type_error():
    """A list that contains itself raises V8's error."""
    value: list[object] = []
    value.append(value)
    assert refusal(value, "json") == ("TypeError", "Converting circular structure to JSON")


def test_property_name_that_javascript_lacks_is_a_type_error():
    """A dict key must be a str, a bool or an int."""
    text = "<class 'tuple'> cannot be the name of a property."
    assert refusal({(1, 2): 3}, "json") == ("TypeError", text)


def test_text_is_utf8():
    """Text is encoded as UTF-8; a lone surrogate becomes U+FFFD."""
    assert encode("Grüße", "text") == "Grüße".encode()
    assert decode("Grüße".encode(), "text") == "Grüße"
    assert encode("a\ud83d", "text") == "a\ufffd".encode()


@pytest.mark.parametrize(
    ("value", "found"),
    [(None, "object"), (1, "number"), (1.5, "number"), (True, "boolean"), (b"a", "object")],
)
def test_text_wants_a_string(value, found):
    """Sending anything but a str as text is a TypeError that names the received type."""
    text = f'Content Type "text" requires a value of type string, but received: {found}'
    assert refusal(value, "text") == ("TypeError", text)


def test_bytes_want_bytes():
    """Bytes and memoryviews are sent unchanged; a str is a TypeError."""
    assert encode(b"\x00\xff", "bytes") == encode(memoryview(b"\x00\xff"), "bytes") == b"\x00\xff"
    assert decode(b"\x00\xff", "bytes") == b"\x00\xff"
    text = 'Content Type "bytes" requires a value of type ArrayBufferView, but received: string'
    assert refusal("a", "bytes") == ("TypeError", text)


def test_v8_carries_bytes_and_large_ints():
    """v8 keeps bytes and ints of up to 64 bits, unlike JSON; a whole float decodes as int."""
    value = {"raw": b"\x00\xff", "view": memoryview(b"v"), "big": 2**63, "whole": 2.0}
    back = decode(encode(value, "v8"), "v8")
    assert back == {"raw": b"\x00\xff", "view": b"v", "big": 2**63, "whole": 2}
    assert isinstance(back["whole"], int)
    assert math.isnan(decode(encode(math.nan, "v8"), "v8"))


@pytest.mark.parametrize("value", [{1, 2}, 2**64, ValueError("no"), object(), "\ud800"])
def test_v8_refuses_what_it_would_change(value):
    """A value that v8 cannot carry is a DataCloneError; it is never changed."""
    name, text = refusal([value], "v8")
    assert name == "DataCloneError"
    assert text.endswith(" could not be cloned.")


def test_damaged_v8_is_a_value_error():
    """A body that is not msgpack is a ValueError."""
    with pytest.raises(ValueError):
        decode(b"\xc1", "v8")


def test_content_type_in_any_case():
    """Content types are case-insensitive; an unknown one is the platform's TypeError."""
    assert [content_type_of(name) for name in ("JSON", "Text", "bytes", "V8")] == [
        "json",
        "text",
        "bytes",
        "v8",
    ]
    with pytest.raises(PlatformError) as refused:
        content_type_of("xml")
    assert refused.value.message == "Unsupported queue message content type: xml"


def test_what_is_written_is_json_to_other_readers():
    """Encoded JSON is equal when read by Python's json module."""
    value = {"text": 'quote " backslash \\ tab \t', "nested": [{"deep": [1, 2.5]}]}
    assert json.loads(encode(value, "json")) == value
