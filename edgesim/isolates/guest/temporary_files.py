"""Temporary files of worker code, in memory: an isolate can write no file.

``tempfile.TemporaryFile`` has no name, so a buffer replaces it.  ``SpooledTemporaryFile``, which
web frameworks use for uploads, makes one of it when it grows beyond its limit.
"""

from __future__ import annotations

import io
import tempfile
from typing import IO, Any

FOLDER = "/tmp"  # noqa: S108 (the answer of tempfile.gettempdir, as in Pyodide)


def install() -> None:
    """Replace ``tempfile.TemporaryFile`` in this process, and set the folder that it would use."""
    tempfile.TemporaryFile = _temporary_file  # type: ignore[assignment]
    tempfile.tempdir = FOLDER


def _temporary_file(
    mode: str = "w+b",
    buffering: int = -1,
    encoding: str | None = None,
    newline: str | None = None,
    suffix: str | None = None,
    prefix: str | None = None,
    dir: str | None = None,  # noqa: A002 (the library's name)
    *,
    errors: str | None = None,
) -> IO[Any]:
    """Return a file in memory, in binary mode or as text."""
    buffer = io.BytesIO()
    if "b" in mode:
        return buffer
    return io.TextIOWrapper(buffer, encoding or "utf-8", errors, newline, write_through=True)
