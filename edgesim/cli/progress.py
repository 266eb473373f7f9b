"""Progress of a replay on standard error: a bar on a terminal, else a line every few seconds."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self, TextIO

BAR_WIDTH = 24
BAR_SECONDS = 0.1
LINE_SECONDS = 5.0
_CLEAR = "\r\x1b[K"


class Progress:
    """Progress display, a context manager that erases its bar even if the replay fails."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._on_terminal = output.isatty()
        self._began = self._shown = time.perf_counter()
        self._bar = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._write(_CLEAR)

    def show(self, answered: int, seconds: float, share: float) -> None:
        """Show the replies, the virtual seconds and the share (0 to 1) of the fixture read."""
        now = time.perf_counter()
        if now - self._shown < (BAR_SECONDS if self._on_terminal else LINE_SECONDS):
            return
        self._shown = now
        rate = answered / (now - self._began)
        text = f"{answered} answered ({rate:.0f}/s), {seconds:.0f} s of virtual time"
        if self._on_terminal:
            self._bar = True
            done = "#" * round(share * BAR_WIDTH)
            self._write(f"{_CLEAR}[{done:<{BAR_WIDTH}}] {text}")
        else:
            self._write(f"{share:4.0%}  {text}\n")

    def end(self, requests: int) -> None:
        """Print the real duration, which the report does not contain."""
        took = time.perf_counter() - self._began
        if self._on_terminal or took >= LINE_SECONDS:
            line = f"{requests} requests in {took:.1f} s ({requests / took:.0f}/s)\n"
            self._write(f"{_CLEAR if self._bar else ''}{line}")
            self._bar = False

    def _write(self, text: str) -> None:
        self._output.write(text)
        self._output.flush()
