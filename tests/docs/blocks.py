"""The code blocks of the Markdown files, in order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.test_tidy import ROOT, TRACKED

FENCE = re.compile(r"(?P<indent> *)```(?P<language>[\w-]*|\{[\w-]+\}.*)$")
HISTORY = "CHANGELOG.md"
PAGES = sorted(
    name for name in TRACKED if name.endswith(".md") and name != HISTORY and (ROOT / name).is_file()
)


@dataclass(frozen=True)
class Block:
    """A fenced code block: its page, its first line's number, its language and text.

    ``lead`` is the last line of prose before the block.
    """

    page: str
    line: int
    language: str
    text: str
    lead: str

    @property
    def first_line(self) -> str:
        """The first line of the text; with the page it names a block in the tables."""
        return self.text.partition("\n")[0]

    @property
    def file(self) -> str | None:
        """The file that the block shows: its first line is a comment with nothing but a path."""
        found = re.fullmatch(r"(?:#|//) ([\w./-]+\.\w+)", self.first_line)
        return found.group(1) if found else None


def blocks_of(page: str) -> list[Block]:
    """The code blocks of a page; directives of Sphinx are none."""
    return list(_blocks(page, (ROOT / page).read_text().splitlines()))


def _blocks(page: str, lines: list[str]) -> Iterator[Block]:
    lead, at = "", 0
    while at < len(lines):
        opened = FENCE.fullmatch(lines[at])
        if opened is None:
            lead = lines[at] if lines[at].strip() else lead
            at += 1
            continue
        indent = opened["indent"]
        end = lines.index(f"{indent}```", at + 1)
        text = "".join(f"{line.removeprefix(indent)}\n" for line in lines[at + 1 : end])
        if not opened["language"].startswith("{"):
            yield Block(page, at + 2, opened["language"], text, lead)
        at = end + 1


def indented(page: str) -> list[int]:
    """Line numbers of indented code blocks, which have no language."""
    lines = (ROOT / page).read_text().splitlines()
    found, fenced = [], False
    for number, line in enumerate(lines, 1):
        fenced ^= FENCE.fullmatch(line) is not None
        after_blank = number == 1 or not lines[number - 2].strip()
        if not fenced and line.startswith("    ") and after_blank and line.strip() != "```":
            found.append(number)
    return found
