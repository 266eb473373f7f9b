"""Encoding of keys to object names on an S3 server."""

from hypothesis import assume, given
from hypothesis import strategies as st

from edgesim.r2.s3.names import HEAD_CHARACTERS, encoded

KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.text(
    st.sampled_from("\0\n !,-./09:<=>@AZ[^_`az{~\x7fé😀"), max_size=8
)


def test_an_ordinary_key_stays_readable():
    """Letters, digits and dots are kept; a slash is encoded as ".~"."""
    assert encoded("event_date=2026-11-23/hr=10/01J.json.gz") == (
        "event_date=2026-11-23.~hr=10.~01J.json.gz"
    )


@given(KEYS)
def test_a_name_means_nothing_to_a_server(key):
    """A name is printable ASCII without special characters, and short enough for a file name."""
    name = encoded(key)
    assert name.isascii()
    assert name.isprintable()
    assert not set("/\\ %?#&+*\"'<>") & set(name)
    assert name not in (".", "..")
    assert len(name) <= 255


@given(KEYS, KEYS)
def test_names_sort_like_keys(one, other):
    """Names that are not truncated differ and sort like the keys' bytes."""
    names = encoded(one), encoded(other)
    assume(max(map(len, names)) <= HEAD_CHARACTERS)
    assert (names[0] < names[1]) == (one.encode() < other.encode())
    assert (names[0] == names[1]) == (one == other)


@given(KEYS, KEYS)
def test_a_prefix_of_a_key_names_a_prefix(prefix, rest):
    """The encoded prefix is a prefix of the encoded key, so that a server can list by it."""
    head = encoded(prefix)[:HEAD_CHARACTERS]
    assert encoded(prefix + rest).startswith(head)


def test_long_keys_that_begin_alike_have_different_names():
    """Truncated names differ by a digest."""
    names = {encoded("k" * 1000 + tail) for tail in ("", "a", "b")}
    assert len(names) == 3
    assert {name[:HEAD_CHARACTERS] for name in names} == {"k" * HEAD_CHARACTERS}
