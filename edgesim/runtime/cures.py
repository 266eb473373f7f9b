"""Fixes for exceptions of worker code that are due to an isolate's limits, found by their text."""

from __future__ import annotations

import re
from pathlib import Path

from edgesim.isolates.guest.packages import cure_of

_NO_MODULE = re.compile(r"^ModuleNotFoundError: No module named '([\w.]+)'\Z", re.MULTILINE)
_FILES = (
    "isolates write no files: keep bytes in memory (io.BytesIO, tempfile.TemporaryFile) or in R2; "
    "on Cloudflare files are lost with the isolate"
)
_SOCKETS = "isolates open no sockets: send requests with `fetch`, from `workers`"
_THREADS = (
    "isolates have no threads: use asyncio.to_thread, which calls the function at once, or "
    "asyncio.gather"
)
_ZONES = (
    "time zones come from a package: add 'tzdata' to `dependencies` in pyproject.toml, then "
    "`uv run pywrangler sync`"
)
_DEBUGGER = "a debugger has its terminal only at the inline level: edgesim dev --isolation inline"
_CURES = {
    r"bdb\.BdbQuit": _DEBUGGER,
    r"PermissionError: \[Errno \d+\] [^\n]*: '[^\n]*'": _FILES,
    r"PermissionError: \[Errno \d+\] Operation not permitted": _SOCKETS,
    r"[\w.]+: [^\n]*(?:Name or service not known|failure in name resolution)[^\n]*": _SOCKETS,
    r"RuntimeError: can't start new thread": _THREADS,
    r"(?:zoneinfo\.\S*)?ZoneInfoNotFoundError: [^\n]*": _ZONES,
}
_KNOWN = [(re.compile(rf"^{text}\Z", re.MULTILINE), cure) for text, cure in _CURES.items()]


def cure_for(message: str, main: Path) -> str | None:
    """Return the fix for an uncaught exception with this text (its traceback), or None.

    ``main`` is the path of the Worker's main module.
    """
    message = message.rstrip()
    missing = _NO_MODULE.search(message)
    if missing is not None:
        return cure_of(ModuleNotFoundError(missing[0], name=missing[1]), main)
    return next((cure for text, cure in _KNOWN if text.search(message)), None)
