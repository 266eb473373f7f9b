"""Conversion of a Worker's R2 options to arguments of Bucket."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from edgesim.errors import PlatformError
from edgesim.model import HttpMetadata, Stream
from edgesim.r2.options import Conditional, Range, read_checksum
from edgesim.runtime.r2_options import body_of, get_arguments, list_arguments, put_arguments

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
NOON_MS = 1_795_435_200_000.0


def wrong_type(field: str, struct: str, kind: str) -> str:
    """The platform's error message for a field of a wrong type."""
    return (
        f"Incorrect type for the '{field}' field on '{struct}': the provided value is not of type "
        f"'{kind}'."
    )


def test_no_options_are_the_defaults():
    """No options, null fields and unknown names are the defaults."""
    for options in (None, {}, {"range": None, "onlyIf": None, "no_such": 1}):
        assert get_arguments(options) == {"range": None, "only_if": None}
    assert put_arguments({"http_metadata": {"contentType": "x"}}) == {
        "http_metadata": HttpMetadata(),
        "custom_metadata": {},
        "checksums": {},
        "only_if": None,
        "storage_class": "Standard",
    }
    assert list_arguments(None) == {
        "prefix": "",
        "limit": 1000,
        "cursor": None,
        "delimiter": None,
        "start_after": None,
        "include": [],
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"offset": 3, "length": 4.0}, Range(3, 4)),
        ({"offset": 3, "length": None}, Range(3)),
        ({"length": 4}, Range(length=4)),
        ({"suffix": 5}, Range(suffix=5)),
        ({}, Range()),
        ([("Range", "bytes=2-5")], Range(2, 4)),
        ([("range", "bytes=2-")], Range(2)),
        ([("range", "bytes=-7")], Range(suffix=7)),
        ([("range", "bytes=5-2")], None),
        ([("range", "bytes=0-1,4-5")], None),
        ([("range", "bytes=-")], None),
        ([("range", "lines=1-2")], None),
        ([("accept", "x")], None),
    ],
)
def test_a_range_is_numbers_or_headers(given, expected):
    """A range has offset, length and suffix, or is a Range header; a useless header is ignored."""
    assert get_arguments({"range": given})["range"] == expected


@pytest.mark.parametrize(
    ("given", "name", "message"),
    [
        ({"suffix": 1, "offset": 1}, "TypeError", "Suffix is incompatible with offset."),
        ({"suffix": 1, "length": 1}, "TypeError", "Suffix is incompatible with length."),
        (
            {"offset": -1},
            "RangeError",
            "Invalid range. Starting offset (-1) must be greater than or equal to 0.",
        ),
        (
            {"length": 1.5},
            "RangeError",
            "Invalid range. Length (1.5) must be an integer, not floating point.",
        ),
        (
            {"suffix": -3},
            "RangeError",
            "Invalid suffix. Suffix (-3) must be greater than or equal to 0.",
        ),
        (
            {"offset": "1"},
            "TypeError",
            wrong_type("offset", "R2Range", "number"),
        ),
        (
            {"offset": float("nan")},
            "TypeError",
            wrong_type("offset", "R2Range", "number"),
        ),
    ],
)
def test_an_impossible_range_is_refused_in_the_platform_s_words(given, name, message):
    """Incompatible fields are a TypeError, an invalid number of bytes is a RangeError."""
    with pytest.raises(PlatformError) as refused:
        get_arguments({"range": given})
    assert (refused.value.name, refused.value.message) == (name, message)


@pytest.mark.parametrize(
    "noon",
    [
        NOON,
        NOON.replace(tzinfo=None),
        NOON.astimezone(timezone(timedelta(hours=5))),
        NOON_MS,
        int(NOON_MS),
    ],
)
def test_a_condition_takes_dates_in_any_form(noon):
    """A date is a datetime (UTC if naive) or a number of milliseconds."""
    given = {
        "etagMatches": "abc",
        "etagDoesNotMatch": "*",
        "uploadedBefore": noon,
        "uploadedAfter": noon,
        "secondsGranularity": True,
    }
    expected = Conditional(("abc",), ("*",), NOON_MS, NOON_MS, seconds_granularity=True)
    assert get_arguments({"onlyIf": given})["only_if"] == expected
    assert put_arguments({"onlyIf": given})["only_if"] == expected


def test_a_condition_may_be_headers():
    """Weak etags count only for If-None-Match; dates have a granularity of seconds."""
    headers = [
        ("If-Match", '"a", W/"weak" ,, "b,c"'),
        ("if-none-match", 'W/"d"'),
        ("If-None-Match", '"e"'),
        ("if-modified-since", "Mon, 23 Nov 2026 12:00:00 GMT"),
        ("if-unmodified-since", "the day before yesterday"),
    ]
    assert get_arguments({"onlyIf": headers})["only_if"] == Conditional(
        etag_matches=("a", "b,c"),
        etag_does_not_match=("d", "e"),
        uploaded_after=NOON_MS,
        seconds_granularity=True,
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"etagMatches": '"abc"'}, 'Conditional ETag should not be wrapped in quotes ("abc").'),
        (
            {"uploadedAfter": "yesterday"},
            wrong_type("uploadedAfter", "R2Conditional", "date"),
        ),
    ],
)
def test_an_impossible_condition_is_a_type_error(given, message):
    """Quoted etags and invalid dates are a TypeError."""
    with pytest.raises(PlatformError) as refused:
        put_arguments({"onlyIf": given})
    assert (refused.value.name, refused.value.message) == ("TypeError", message)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("abc", "Invalid ETag in if-match header"),
        ("", "Invalid ETag in if-match header"),
        ('"abc', "Unclosed double quote for Etag"),
        ('W/"abc', "Unclosed double quote for Etag"),
        ("W/abc", "Weak etags must start with W/ and their value must be quoted"),
        ('"a" "b"', "Comma was expected to separate etags. Encountered a double quote"),
        ('"a" *', "Comma was expected to separate etags. Encountered a wildcard"),
        ('"a"W/"b"', "Comma was expected to separate etags. Encountered a weak quotation"),
    ],
)
def test_headers_that_are_no_etags_are_refused(header, message):
    """An invalid etag header is an error, not a condition that never holds (section 4)."""
    with pytest.raises(PlatformError) as refused:
        get_arguments({"onlyIf": [("If-Match", header)]})
    assert refused.value.message.startswith(message)


def test_a_wildcard_overrules_the_other_etags():
    """A wildcard replaces the etags before it in the header (section 4)."""
    condition = get_arguments({"onlyIf": [("if-none-match", '"a", *')]})["only_if"]
    assert condition == Conditional(etag_does_not_match=("*",), seconds_granularity=True)


def test_metadata_becomes_text_as_in_javascript():
    """Every metadata value becomes a string, as on the platform."""
    given = {"s": "x", "i": 5, "f": 2.0, "h": 1.5, "t": True, "d": {}, "half": "\ud800", "n": None}
    assert put_arguments({"customMetadata": given})["custom_metadata"] == {
        "s": "x",
        "i": "5",
        "f": "2",
        "h": "1.5",
        "t": "true",
        "d": "[object Object]",
        "half": "\ufffd",
    }


def test_http_metadata_is_fields_or_headers():
    """HTTP metadata is six fields, or the headers of a request."""
    expected = HttpMetadata("text/x", "de", "inline", "gzip", "no-store", NOON_MS)
    fields = {
        "contentType": "text/x",
        "contentLanguage": "de",
        "contentDisposition": "inline",
        "contentEncoding": "gzip",
        "cacheControl": "no-store",
        "cacheExpiry": NOON,
    }
    headers = [
        ("Content-Type", "text/x"),
        ("content-language", "de"),
        ("content-disposition", "inline"),
        ("content-encoding", "gzip"),
        ("cache-control", "no-store"),
        ("expires", "Mon, 23 Nov 2026 12:00:00 GMT"),
        ("x-other", "y"),
    ]
    assert put_arguments({"httpMetadata": fields})["http_metadata"] == expected
    assert put_arguments({"httpMetadata": headers})["http_metadata"] == expected


def test_checksums_are_hex_or_bytes():
    """A checksum is hex or bytes; any other type is a TypeError."""
    given = {"md5": bytearray(16), "sha1": "00" * 20}
    assert put_arguments(given)["checksums"] == {"md5": bytes(16), "sha1": "00" * 20}
    with pytest.raises(PlatformError, match="'sha256' field"):
        put_arguments({"sha256": 5})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"md5": "0" * 32, "sha1": "0" * 40},
            "You cannot specify multiple hashing algorithms.",
        ),
        ({"md5": "0" * 31}, "MD5 is 32 hex characters, not 31"),
        ({"sha256": b"short"}, "SHA-256 is 32 bytes, not 5"),
        ({"sha512": "x" * 128}, "Provided SHA-512 wasn't a valid hex string"),
    ],
)
def test_a_malformed_checksum_is_a_type_error(given, message):
    """A malformed checksum is a TypeError with the platform's message."""
    with pytest.raises(PlatformError) as refused:
        read_checksum(given)
    assert (refused.value.name, refused.value.message) == ("TypeError", message)


def test_list_options_have_their_own_names():
    """Numbers may be floats; Bucket checks the limit itself."""
    given = {
        "prefix": "a/",
        "limit": 10.0,
        "cursor": "c",
        "delimiter": "/",
        "startAfter": "a/b",
        "include": ["httpMetadata"],
    }
    assert list_arguments(given) == {
        "prefix": "a/",
        "limit": 10,
        "cursor": "c",
        "delimiter": "/",
        "start_after": "a/b",
        "include": ["httpMetadata"],
    }
    for wrong in ({"limit": "ten"}, {"include": "httpMetadata"}):
        with pytest.raises(PlatformError, match="Incorrect type for the"):
            list_arguments(wrong)


def test_options_must_be_an_object():
    """Text or a number in place of options is a TypeError."""
    for read in (get_arguments, put_arguments, list_arguments):
        with pytest.raises(PlatformError) as refused:
            read("text")  # type: ignore[arg-type]
        assert refused.value.name == "TypeError"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("é", "é".encode()),
        ("\ud800", "\ufffd".encode()),
        (b"\0", b"\0"),
        (bytearray(b"x"), b"x"),
        (memoryview(b"xy")[1:], b"y"),
        (None, b""),
    ],
)
def test_a_body_is_text_bytes_or_nothing(given, expected):
    """A text body is encoded as UTF-8; null is an empty body."""
    assert body_of(given) == expected


@pytest.mark.parametrize("wrong", [5, {"a": 1}, [1, 2]])
def test_other_bodies_are_a_type_error(wrong):
    """A dict, a list or a number as a body is a TypeError."""
    with pytest.raises(PlatformError, match="parameter 2 is not of type") as refused:
        body_of(wrong)
    assert refused.value.name == "TypeError"


async def _nothing():
    yield b""


def test_a_stream_needs_a_known_length():
    """A stream without a known length is refused, as a cloned body is on the platform."""
    known = Stream(_nothing(), 0)
    assert body_of(known) is known
    with pytest.raises(PlatformError, match="must have a known length"):
        body_of(Stream(_nothing()))
