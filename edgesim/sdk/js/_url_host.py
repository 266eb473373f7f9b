"""Hosts of URLs in their normal form, and percent-encoding.

A host beyond ASCII is lower-cased, normalised (NFKC) and written in Punycode.  A label in Punycode
is checked: it must stand for printable characters.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from js._text import utf8

_FORBIDDEN = r"[\0\t\n\r #/:<>?@\[\\\]^|]"
_FORBIDDEN_IN_DOMAIN = r"[\0-\x20#%/:<>?@\[\\\]^|\x7f]"
_HEXADECIMAL = "0[xX]([0-9A-Fa-f]*)"
_OCTAL = "0([0-7]+)"
_DECIMAL = "(0|[1-9][0-9]{0,10})"  # Python reads no more than 4,300 digits
_IGNORED = "[\u00ad\u034f\u180b-\u180d\u200b\u2060\ufe00-\ufe0f\ufeff]"
"""Characters that a host loses (UTS 46)."""
_PUNYCODE = "xn--"

C0 = frozenset(range(0x20)) | frozenset(range(0x7F, 0x100))


class InvalidUrlError(ValueError):
    """Raised for text that is no URL."""


def encoded(text: str, escaped: frozenset[int]) -> str:
    """Return the text with the bytes ``escaped`` of its UTF-8 as ``%XX``."""
    return "".join(f"%{each:02X}" if each in escaped else chr(each) for each in utf8(text))


def parse_host(text: str, *, is_special: bool) -> str:
    """Return a host in its normal form; InvalidUrlError if it is none."""
    if text.startswith("["):
        if not text.endswith("]"):
            raise InvalidUrlError
        return f"[{_ipv6(text[1:-1])}]"
    if not is_special:
        if re.search(_FORBIDDEN, text):
            raise InvalidUrlError
        return encoded(text, C0)
    domain = _to_ascii(unquote_to_bytes(utf8(text)).decode("utf-8", "replace"))
    if not domain or re.search(_FORBIDDEN_IN_DOMAIN, domain):
        raise InvalidUrlError
    last = domain.removesuffix(".").rpartition(".")[2]
    if last.isdecimal() or re.fullmatch(_HEXADECIMAL, last):
        return _ipv4(domain)
    return domain


def _to_ascii(domain: str) -> str:
    if domain.isascii():
        domain = domain.lower()
        if _PUNYCODE not in domain:
            return domain
    import unicodedata  # only here: most hosts are ASCII

    domain = unicodedata.normalize("NFKC", re.sub(_IGNORED, "", domain).lower()).lower()
    labels = re.split("[.\u3002\uff0e\uff61]", domain)
    return ".".join(map(_label, labels))


def _label(text: str) -> str:
    import unicodedata

    if text.startswith(_PUNYCODE):
        try:
            shown = text.removeprefix(_PUNYCODE).encode("ascii").decode("punycode")
        except UnicodeError:
            raise InvalidUrlError from None
    else:
        shown = text
    # Categories C*: controls, surrogates and what is not assigned; U+FFFD stands for invalid UTF-8.
    odd = "\ufffd" in shown or any(
        not each.isascii() and unicodedata.category(each)[0] == "C" for each in shown
    )
    if odd or (not shown and text):
        raise InvalidUrlError
    return text if text.isascii() else _PUNYCODE + text.encode("punycode").decode()


def _ipv4(domain: str) -> str:
    parts = domain.removesuffix(".").split(".")
    if len(parts) > 4:
        raise InvalidUrlError
    numbers = [_ipv4_number(each) for each in parts]
    if any(each > 255 for each in numbers[:-1]) or numbers[-1] >= 256 ** (5 - len(numbers)):
        raise InvalidUrlError
    address = numbers[-1] + sum(each << (24 - 8 * at) for at, each in enumerate(numbers[:-1]))
    return ".".join(str(address >> shift & 255) for shift in (24, 16, 8, 0))


def _ipv4_number(text: str) -> int:
    for pattern, base in ((_HEXADECIMAL, 16), (_OCTAL, 8), (_DECIMAL, 10)):
        found = re.fullmatch(pattern, text)
        if found is not None:
            return int(found[1] or "0", base)
    raise InvalidUrlError


def _ipv6(text: str) -> str:
    import ipaddress  # only here: few URLs have such a host

    try:
        if not text.isascii() or "%" in text:
            raise InvalidUrlError
        address = ipaddress.IPv6Address(text)
    except ValueError:
        raise InvalidUrlError from None
    pieces = [int(address) >> shift & 0xFFFF for shift in range(112, -1, -16)]
    shown = ":".join(f"{each:x}" for each in pieces)
    runs = sorted(re.finditer(r"(?:^|(?<=:))0(?::0)+(?=:|$)", shown), key=lambda run: -len(run[0]))
    if not runs:
        return shown
    longest = runs[0]
    return (
        f"{shown[: longest.start()].removesuffix(':')}::{shown[longest.end() :].removeprefix(':')}"
    )
