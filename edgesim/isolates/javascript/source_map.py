"""Source maps: places in a bundle to places in the sources that it was built from.

Facts: the format's specification, https://tc39.es/ecma426/ (version 3, base64 VLQ).
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

_DIGITS = {
    digit: value
    for value, digit in enumerate(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    )
}
_CONTINUES = 32
_GUEST = re.compile(r"^    at (.*\()?edgesim/[\w-]+\.js:\d")
_FRAME = re.compile(r"(?<=[ (])worker:(\d+):(\d+)")


class SourceMap:
    """The source map of one bundle; it is read at the first look-up."""

    def __init__(self, file: Path, folder: str) -> None:
        """``folder``: sources below it are shown relative to it."""
        self._text = file.read_bytes()
        self._base = file.parent
        self._folder = folder

    def mapped(self, stack: str) -> str:
        """The stack with the sources' places for the bundle's, without the guest's own frames."""
        lines = [line for line in stack.split("\n") if _GUEST.search(line) is None]
        return _FRAME.sub(self._replace, "\n".join(lines))

    def first(self, stack: str) -> str | None:
        """The place in the sources of the stack's first frame that has one."""
        for match in _FRAME.finditer(stack):
            place = self.place(int(match[1]), int(match[2]))
            if place is not None:
                return place
        return None

    def place(self, line: int, column: int) -> str | None:
        """``file:line:column`` in the source, counted from 1; None if it is in no source."""
        if not 0 < line <= len(self._lines):
            return None
        segments = self._lines[line - 1]
        index = bisect_right(segments, column - 1, key=lambda segment: segment[0]) - 1
        if index < 0:
            return None
        _, source, source_line, source_column = segments[index]
        return f"{self._sources[source]}:{source_line + 1}:{source_column + 1}"

    def _replace(self, match: re.Match[str]) -> str:
        return self.place(int(match[1]), int(match[2])) or match[0]

    @cached_property
    def _map(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(self._text)
        return found

    @cached_property
    def _sources(self) -> list[str]:
        return [self._shown(each) for each in self._map["sources"]]

    def _shown(self, source: str) -> str:
        path = os.path.normpath(self._base / source)
        inside = os.path.relpath(path, self._folder)
        return path if inside.startswith("..") else inside

    @cached_property
    def _lines(self) -> list[list[tuple[int, int, int, int]]]:
        """For each line of the bundle: (column, source, source line, source column), from 0."""
        lines = []
        source = source_line = source_column = 0
        for text in self._map["mappings"].split(";"):
            column, segments = 0, []
            for segment in filter(None, text.split(",")):
                fields = _decoded(segment)
                column += fields[0]
                if len(fields) >= 4:
                    source += fields[1]
                    source_line += fields[2]
                    source_column += fields[3]
                    segments.append((column, source, source_line, source_column))
            lines.append(segments)
        return lines


def _decoded(segment: str) -> list[int]:
    """The numbers of a segment: base64 digits of five bits, least significant first, sign last."""
    numbers, value, shift = [], 0, 0
    for digit in segment:
        bits = _DIGITS[digit]
        value |= (bits & ~_CONTINUES) << shift
        shift += 5
        if not bits & _CONTINUES:
            numbers.append(-(value >> 1) if value & 1 else value >> 1)
            value = shift = 0
    return numbers
