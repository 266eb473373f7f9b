"""One place that holds an event, or held it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

TEXT_CHARS_MAX = 2000
"""Longer texts in a sighting are cut."""

Stage = Literal[
    "request", "log", "exception", "tail", "pipeline", "object", "queue", "table", "not searched"
]


class Sighting(msgspec.Struct, frozen=True):
    """``at`` is an ISO time in UTC, None if the place does not know it.

    A sighting of the stage "not searched" names what a limit or a failure left out.
    """

    stage: Stage
    place: str
    at: str | None = None
    detail: dict[str, Any] = {}


class Needle:
    """A text to search for, in plain form and as escaped in a JSON string."""

    def __init__(self, text: str) -> None:
        self.text = text
        forms = (text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
        self._texts = sorted(set(forms))
        self._bytes = [form.encode("utf-8", "surrogatepass") for form in self._texts]

    def is_in(self, text: str) -> bool:
        """True if the text contains it."""
        return any(form in text for form in self._texts)

    def is_in_bytes(self, data: bytes) -> bool:
        """True if the bytes (UTF-8) contain it."""
        return any(form in data for form in self._bytes)


def iso(time_ms: float) -> str:
    """Unix milliseconds as an ISO time in UTC."""
    time = datetime.fromtimestamp(time_ms / 1000, UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def cut(text: str) -> str:
    """The text, or its beginning with the number of characters that follow."""
    more = len(text) - TEXT_CHARS_MAX
    return text if more <= 0 else f"{text[:TEXT_CHARS_MAX]}... ({more} characters more)"
