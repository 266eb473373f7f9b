"""Line numbers of keys in configuration files, which the parsers do not report."""

from __future__ import annotations

import re
from pathlib import Path


def line_of(file: Path, key: str, value: str | None = None) -> int:
    """The first line with the key (and the value, if given), counted from 1; 1 if there is none."""
    wanted = re.compile(rf"""(?<![\w-])["']?{re.escape(key)}["']?\s*[:=\]]""")
    for number, line in enumerate(file.read_text("utf-8-sig").splitlines(), 1):
        code = line.partition("//")[0] if file.suffix != ".toml" else line.partition("#")[0]
        if wanted.search(code) and (value is None or value in code):
            return number
    return 1
