"""Fixes for exceptions of worker code that are due to an isolate's limits, found by their text."""

from __future__ import annotations

import re
from pathlib import Path

from edgesim.isolates.guest.packages import cure_of

_NO_MODULE = re.compile(
    r"^(?:ModuleNotFoundError: No module named|ImportError: cannot import name '\w+' from)"
    r" '([\w.]+)'[^\n]*\Z",
    re.MULTILINE,
)
_FILES = (
    "a Worker writes files in /tmp only, which is in memory and one invocation's own, and reads "
    "those of its own folder: keep bytes there, in io.BytesIO or in R2"
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
_NO_BINDING = re.compile(r"^AttributeError: env\.(\w+): [^\n]*", re.MULTILINE)
_KEYS = {
    "createMultipartUpload": '"r2_buckets"',
    "delete": '"r2_buckets" or "kv_namespaces"',
    "fetch": '"services"',
    "get": '"r2_buckets" or "kv_namespaces"',
    "getWithMetadata": '"kv_namespaces"',
    "head": '"r2_buckets"',
    "list": '"r2_buckets" or "kv_namespaces"',
    "put": '"r2_buckets" or "kv_namespaces"',
    "resumeMultipartUpload": '"r2_buckets"',
    "send": '"queues.producers" or "pipelines"',
    "sendBatch": '"queues.producers"',
}
"""Method of a binding -> keys of the wrangler file that declare such bindings."""
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
    absent = _NO_BINDING.search(message)
    if absent is not None:
        return _declaration(absent[1], message)
    return next((cure for text, cure in _KNOWN if text.search(message)), None)


def _declaration(name: str, message: str) -> str:
    """Return the fix for a binding that is not configured; the traceback shows its method."""
    used = re.findall(rf"\benv\.{name}\.(\w+)\(", message)
    if not used:
        return f'declare {name} in the wrangler file under "vars", or add {name}=... to .dev.vars'
    key = _KEYS.get(used[-1])
    if key is None:
        return f"declare the binding {name} in the wrangler file"
    return f"declare the binding {name} in the wrangler file under {key}"
