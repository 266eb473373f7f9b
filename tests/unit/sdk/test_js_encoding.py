"""``TextEncoder`` and ``TextDecoder``: whole texts, and texts in parts."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from js import TextDecoder, TextEncoder, Uint8Array
from pyodide.ffi import JsException, to_js

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXT, st.integers(0, 20))
def test_encode_into_writes_whole_characters(text, room):
    """As many characters are written as there is room for, and their UTF-16 units are counted."""
    target = Uint8Array.new(room)
    done = TextEncoder.new().encodeInto(text, target)
    written = target.to_bytes()[: done.written].decode()
    assert text.startswith(written)
    assert done.read == len(written.encode("utf-16-le")) // 2
    rest = text[len(written) :]
    assert not rest or done.written + len(rest[0].encode()) > room


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16le", "utf-16be", "gb18030"])
@given(text=TEXT, cuts=st.lists(st.integers(0, 200), max_size=5))
def test_text_in_parts(encoding, text, cuts):
    """A character may be divided between parts; the text is that of all bytes."""
    data = text.encode(encoding)
    whole = text.removeprefix("\ufeff")
    decoder = TextDecoder.new(encoding)
    edges = [0, *sorted(each for each in cuts if each < len(data)), len(data)]
    parts = [data[start:end] for start, end in pairwise(edges)]
    shown = [decoder.decode(to_js(part), stream=True) for part in parts]
    assert "".join(shown) + decoder.decode() == whole


@given(st.binary(max_size=40))
def test_invalid_bytes(data):
    """Invalid bytes are U+FFFD as in Python, and a TypeError of a fatal decoder."""
    shown = data.decode("utf-8", "replace")
    kept = TextDecoder.new("utf-8", ignoreBOM=True)
    assert kept.decode(to_js(data)) == shown
    fatal = TextDecoder.new("utf-8", fatal=True, ignoreBOM=True)
    try:
        data.decode()
    except UnicodeDecodeError:
        with pytest.raises(JsException, match=r"^TypeError"):
            fatal.decode(to_js(data))
        assert fatal.decode(to_js(b"next")) == "next"
    else:
        assert fatal.decode(to_js(data)) == shown


def test_unknown_encodings():
    """A label that is not known is a RangeError."""
    with pytest.raises(JsException, match=r"^RangeError"):
        TextDecoder.new("utf-7")
