"""Listing a bucket: pages in key order, delimited prefixes, cursors.

A cursor names the last entry of the previous page, an object or a delimited prefix, not the start
of the next page.  So no key added meanwhile is missed, and no prefix is returned twice.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence

import anyio.lowlevel
import msgspec

from edgesim.errors import PlatformError
from edgesim.model import HttpMetadata, R2Object
from edgesim.r2 import limits
from edgesim.r2.driver import R2Driver
from edgesim.r2.limits import refusal

_GROUPED_PAGE = 64
_INCLUDES = {"httpMetadata": "http_metadata", "customMetadata": "custom_metadata"}
# Sorts after every legal key that begins with the text before it: longer than a key can be.
_LAST = "\U0010ffff" * (limits.KEY_BYTES_MAX // 4 + 1)

Entry = R2Object | str


class Listing(msgspec.Struct, frozen=True):
    """A page of a bucket, by its keys' UTF-8 bytes; ``cursor`` leads to the next page."""

    objects: list[R2Object]
    truncated: bool
    cursor: str | None
    delimited_prefixes: list[str]


class Page(msgspec.Struct, frozen=True):
    """A page request: keys with ``prefix`` greater than ``after``, up to ``limit`` entries."""

    prefix: str
    after: str
    delimiter: str
    limit: int


async def read_page(driver: R2Driver, bucket: str, page: Page, include: Sequence[str]) -> Listing:
    """Read one page; its objects carry only the metadata that ``include`` names."""
    shown = _shown(include)
    entries = await _entries(driver, bucket, page)
    truncated = len(entries) > page.limit
    del entries[page.limit :]
    return Listing(
        objects=[shown(entry) for entry in entries if isinstance(entry, R2Object)],
        truncated=truncated,
        cursor=_cursor(entries[-1]) if truncated else None,
        delimited_prefixes=[entry for entry in entries if isinstance(entry, str)],
    )


async def _entries(driver: R2Driver, bucket: str, page: Page) -> list[Entry]:
    """Up to ``limit`` entries and one more, which shows that the page is truncated."""
    entries: list[Entry] = []
    after = page.after
    while (missing := page.limit + 1 - len(entries)) > 0:
        # A delimited prefix may stand for very many keys: read few, then skip the rest.
        size = min(missing, _GROUPED_PAGE) if page.delimiter else missing
        found = await driver.list(bucket, page.prefix, after, size)
        await anyio.lowlevel.checkpoint()  # local drivers never yield by themselves
        if not found:
            break
        for stored in found:
            entry = _fold(stored, page)
            if not entries or entries[-1] != entry:
                entries.append(entry)
        after = _end(entries[-1])
    return entries


def _fold(found: R2Object, page: Page) -> Entry:
    """The object, or the delimited prefix that includes it."""
    end = found.key.find(page.delimiter, len(page.prefix)) if page.delimiter else -1
    return found if end < 0 else found.key[: end + len(page.delimiter)]


def _end(entry: R2Object | str) -> str:
    """The last position that an entry of a listing covers."""
    return entry + _LAST if isinstance(entry, str) else entry.key


def _cursor(entry: R2Object | str) -> str:
    text = f"p{entry}" if isinstance(entry, str) else f"k{entry.key}"
    return base64.urlsafe_b64encode(text.encode()).decode()


def cursor_after_prefix(prefix: str) -> str:
    """The cursor of a page that ended with this delimited prefix."""
    return _cursor(prefix)


def position(cursor: str | None) -> str:
    """The position that a cursor stands for; PlatformError for an invalid one."""
    if cursor is None:
        return ""
    try:
        text = base64.b64decode(cursor, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError, ValueError):
        text = ""
    if text[:1] == "p":
        return text[1:] + _LAST
    if text[:1] == "k":
        return text[1:]
    raise refusal("list", limits.INVALID_ARGUMENT, "The specified cursor is not valid.")


def _shown(include: Sequence[str]) -> Callable[[R2Object], R2Object]:
    """A function that hides the metadata that ``include`` does not name."""
    hidden: dict[str, object] = {"http_metadata": HttpMetadata(), "custom_metadata": {}}
    for field in include:
        if field not in _INCLUDES:
            raise PlatformError(f"Unsupported include value {field}", "RangeError")
        hidden.pop(_INCLUDES[field], None)
    return lambda found: msgspec.structs.replace(found, **hidden)
