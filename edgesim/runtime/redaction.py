"""Redaction of traces: secrets in headers, ids and card numbers in URLs.

A Tail Worker sees the original values only through ``getUnredacted()``.

Facts: workerd's trace.c++ and util.c++.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

REDACTED = "REDACTED"
_SECRET_WORDS = ("auth", "jwt", "key", "secret", "token")
_RUN = re.compile(r"[A-Za-z0-9+\-_]{13,}")
"""Run of characters; a shorter one is neither an id nor a card number."""
_SEPARATORS = str.maketrans("", "", "+-_")
_HEX = frozenset("0123456789abcdefABCDEF")


def redact_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers (lower-case names) with the values of secret ones redacted."""
    return {name: REDACTED if is_secret(name) else value for name, value in headers.items()}


def redact_url(url: str) -> str:
    """Return the URL with anything like an id or a card number replaced by ``REDACTED``."""
    return _RUN.sub(lambda run: REDACTED if _looks_secret(run[0]) else run[0], url)


@lru_cache(maxsize=1024)
def is_secret(name: str) -> bool:
    """Return True if the header's value is redacted; ``name`` is in lower case."""
    return name in {"cookie", "set-cookie"} or any(word in name for word in _SECRET_WORDS)


def _looks_secret(run: str) -> bool:
    plain = run.translate(_SEPARATORS)
    return _is_hex_id(plain) or _is_card_number(plain) or _is_base64_id(run)


def _is_hex_id(plain: str) -> bool:
    return len(plain) >= 32 and _HEX.issuperset(plain)


def _is_base64_id(run: str) -> bool:
    counts = (
        sum(char.isupper() for char in run),
        sum(char.islower() for char in run),
        sum(char.isdigit() for char in run),
    )
    return len(run) >= 21 and min(counts) >= 2


def _is_card_number(plain: str) -> bool:
    """Return True for 13 to 19 digits with a valid Luhn check digit."""
    if not (plain.isdigit() and 13 <= len(plain) <= 19):
        return False
    doubled = [int(digit) * (1 + index % 2) for index, digit in enumerate(reversed(plain))]
    return sum(number // 10 + number % 10 for number in doubled) % 10 == 0
