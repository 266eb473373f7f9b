"""Redaction for Tail Workers: secrets in headers, ids and card numbers in URLs."""

import re
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgesim.runtime.redaction import redact_headers, redact_url

SECRET_WORDS = ("auth", "jwt", "key", "secret", "token")
IDS = string.ascii_letters + string.digits + "+-_"
LOWER = st.text(string.ascii_lowercase + "-", max_size=12)


@pytest.mark.parametrize(
    "name", ["cookie", "set-cookie", "authorization", "x-api-key", "x-keyboard"]
)
def test_secret_headers(name):
    """Cookies and headers whose name contains auth, jwt, key, secret or token are redacted."""
    assert redact_headers({name: "v", "accept": "a"}) == {name: "REDACTED", "accept": "a"}


@given(LOWER, st.sampled_from(SECRET_WORDS), LOWER, st.text())
def test_any_header_with_a_secret_word_is_hidden(before, word, after, value):
    """A secret word at any position of the name redacts any value."""
    name = before + word + after
    assert redact_headers({name: value}) == {name: "REDACTED"}


@given(st.dictionaries(LOWER, st.text()))
def test_other_headers_are_shown_as_they_are(headers):
    """Headers without a secret word keep their value; no header is dropped."""
    shown = redact_headers(headers)
    assert shown.keys() == headers.keys()
    for name, value in shown.items():
        secret = name in {"cookie", "set-cookie"} or any(word in name for word in SECRET_WORDS)
        assert value == ("REDACTED" if secret else headers[name])


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("0123456789abcdef0123456789abcdef/x", "REDACTED/x"),
        ("0123456789abcdef0123456789abcde/x", "0123456789abcdef0123456789abcde/x"),
        ("0123456789abcdef0123456789abcdefg", "0123456789abcdef0123456789abcdefg"),
        ("550e8400-e29b-41d4-a716-446655440000", "REDACTED"),
        ("01234567890123456azAZ", "REDACTED"),
        ("012345678901234567azZ", "012345678901234567azZ"),
        ("0123456789012345azAZ", "0123456789012345azAZ"),
        ("4111-1111-1111-1111", "REDACTED"),
        ("4111+1111+1111+1111?x", "REDACTED?x"),
        ("4111-1111-1111-1112", "4111-1111-1111-1112"),
        ("n=4222222222222&m=79927398713", "n=REDACTED&m=79927398713"),
        ("40000000000000000002", "40000000000000000002"),
        ("events/2026?player=alice", "events/2026?player=alice"),
    ],
)
def test_ids_in_urls(path, expected):
    """Hex runs from 32, mixed runs from 21, and card numbers of 13 to 19 digits are redacted."""
    assert redact_url(f"http://x/{path}") == f"http://x/{expected}"


@given(st.text("0123456789abcdefABCDEF", min_size=32, max_size=80), st.sampled_from("/?=&.%:"))
def test_a_hex_id_is_hidden_wherever_it_stands(run, boundary):
    """A hex id is redacted between any two characters that are no part of an id."""
    assert redact_url(f"p{boundary}{run}{boundary}q") == f"p{boundary}REDACTED{boundary}q"


@given(st.text("0123456789", min_size=12, max_size=18), st.lists(st.integers(0, 18), max_size=4))
def test_a_card_number_is_hidden_and_a_wrong_one_is_not(digits, places):
    """A number with a valid check digit is redacted, with or without separators; others are not."""
    doubled = [int(digit) * (2 - index % 2) for index, digit in enumerate(reversed(digits))]
    check = -sum(number // 10 + number % 10 for number in doubled) % 10
    for offset in range(10):
        number = digits + str((check + offset) % 10)
        for place in places:
            number = number[: place % len(number)] + "-" + number[place % len(number) :]
        assert redact_url(f"/{number}/") == ("/REDACTED/" if offset == 0 else f"/{number}/")


@given(st.text(string.printable))
def test_nothing_but_whole_runs_is_hidden(url):
    """Text outside of id runs is unchanged; a run is redacted as a whole or not changed."""
    assume("REDACTED" not in url)
    other = re.compile(f"[^{re.escape(IDS)}]+")
    shown = redact_url(url)
    assert other.findall(shown) == other.findall(url)
    for before, after in zip(other.split(url), other.split(shown), strict=True):
        assert after in {before, "REDACTED"}


@given(st.text(IDS, max_size=20))
def test_short_words_are_shown(run):
    """A run of up to 20 characters is redacted only if it is a card number."""
    assume(not run.translate(str.maketrans("", "", "+-_")).isdigit())
    assert redact_url(run) == run
