"""A finding, and the three ways to show a list of them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

Level = Literal["error", "warning"]


class Finding(msgspec.Struct, frozen=True, order=True):
    """A difference from the platform, with its fix; ``line`` counts from 1."""

    file: str
    line: int
    level: Level
    rule: str
    problem: str
    cure: str


def shown_as_text(findings: list[Finding]) -> str:
    """One finding per line, as ``file:line:``, which editors turn into links."""
    return "\n".join(
        f"{each.file}:{each.line}: {each.level}: {each.problem}. {each.cure}. [{each.rule}]"
        for each in findings
    )


def shown_for_github(findings: list[Finding]) -> str:
    """GitHub workflow commands, shown as annotations of a pull request."""
    return "\n".join(
        f"::{each.level} file={_property(each.file)},line={each.line},"
        f"title={_property(each.rule)}::{_data(f'{each.problem}. {each.cure}.')}"
        for each in findings
    )


def shown_as_json(findings: list[Finding]) -> str:
    """A JSON array with one object per finding."""
    return msgspec.json.format(msgspec.json.encode(findings)).decode()


FORMATS = {"text": shown_as_text, "github": shown_for_github, "json": shown_as_json}


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def relative(file: Path, root: Path) -> str:
    """The path relative to the working directory, else to ``root``, else absolute."""
    for base in (Path.cwd(), root):
        if file.is_relative_to(base):
            return str(file.relative_to(base))
    return str(file)
