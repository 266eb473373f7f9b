"""The code blocks of one page, run in order in one folder."""

from __future__ import annotations

import json
import re
from pathlib import Path

from edgesim.config import load_project
from edgesim.replay import expectations
from tests.docs.blocks import Block
from tests.docs.shell import Shell

ELLIPSIS = re.escape("...")
BASE = 'workers = ["worker"]\n'
WRANGLER = '{"main": "worker.py", "compatibility_date": "2026-10-01"}'


class Story:
    """Runs blocks by their language.

    A block whose first line is a comment with a path is written to that file, for the commands
    after it. Other TOML must be a valid part of ``edgesim.toml``. Text after a line that ends with
    "prints:" is compared with the output of the shell block before it; ``...`` stands for anything.
    """

    def __init__(self, shell: Shell, scratch: Path) -> None:
        self._shell = shell
        self._scratch = scratch
        self._output = ""

    def run(self, block: Block) -> None:
        """Run one block; AssertionError if it does not do what the page says."""
        if block.file is not None:
            self._write(block.file, block.text)
            return
        match block.language:
            case "sh":
                self._output = self._shell.run(block.text)
            case "toml":
                self._check_part(block.text)
            case "json":
                json.loads(block.text)
            case "text" | "yaml" if block.lead.endswith("prints:"):
                self._compare(block.text)
            case other:
                raise AssertionError(
                    f"{block.page}:{block.line}: no test runs this {other} block: name its file "
                    "in a comment on its first line, or list it in pages.py with the reason"
                )

    def _write(self, name: str, text: str) -> None:
        file = self._shell.folder / name
        is_reloaded = self._shell.serves and file.is_file() and any(file.parent.glob("wrangler.*"))
        reloads = self._shell.reloads
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        if file.name.startswith("expected"):
            expectations.read(file)
        if is_reloaded:
            self._shell.wait_for_reload(reloads)

    def _check_part(self, text: str) -> None:
        """A project with these lines in its edgesim.toml must load."""
        worker = self._scratch / "part" / "worker"
        worker.mkdir(parents=True, exist_ok=True)
        (worker / "wrangler.jsonc").write_text(WRANGLER)
        (worker / "worker.py").write_text("")
        (worker.parent / "edgesim.toml").write_text(BASE + text)
        load_project(worker.parent)

    def _compare(self, text: str) -> None:
        expected = re.escape(text.strip()).replace(ELLIPSIS, ".*?")
        found = "\n".join(line.rstrip() for line in self._output.strip().splitlines())
        assert re.fullmatch(expected, found, re.DOTALL), f"the page shows\n{text}\nnot\n{found}"
