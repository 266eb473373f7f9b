"""Results that are read page by page, and their times."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import msgspec

LIST_PAGE = 500
"""Objects of one page of a listing: a few milliseconds of work."""


class PagedRows:
    """The result of a potentially long operation: rows, in pages, read once."""

    def __init__(self, pages: AsyncIterator[list[dict[str, Any]]]) -> None:
        self.pages = pages

    async def as_json(self) -> AsyncIterator[bytes]:
        """All rows as one JSON array, in pieces.  The first page is read before the first piece."""
        begun = False
        async for page in self.pages:
            text = msgspec.json.encode(page)[1:-1]
            yield (b"," if begun and text else b"") + text if begun else b"[" + text
            begun = True
        yield b"]" if begun else b"[]"

    async def all(self) -> list[dict[str, Any]]:
        """Read all rows into one list."""
        return [row async for page in self.pages for row in page]


def iso(time_ms: float) -> str:
    """Unix milliseconds as ISO 8601 in UTC."""
    time = datetime.fromtimestamp(time_ms / 1000, UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
