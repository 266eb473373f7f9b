"""Rules about imports of modules that the platform does not have, or that fail when used."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.machinery import all_suffixes
from pathlib import Path

from edgesim.check.findings import Finding, relative
from edgesim.check.sources import Source, aliases, dotted, imports, is_own
from edgesim.config import WorkerConfig
from edgesim.config.files import read_table
from edgesim.isolates.guest.import_order import (
    ABSENT,
    ADDED,
    LIBRARY,
    NOT_EVERYWHERE,
    REMOVED,
    own_file,
)
from edgesim.isolates.guest.packages import module_folders

SDK = frozenset({"workers", "js", "pyodide", "asgi"})
NO_SOCKETS = "use fetch, or a binding"
NO_PROCESSES = "there is one process; use asyncio"
# These can be imported, but raise at their first use.
USELESS = {
    "socket": NO_SOCKETS,
    "socketserver": NO_SOCKETS,
    "http.server": NO_SOCKETS,
    "urllib.request": NO_SOCKETS,
    "http.client": NO_SOCKETS,
    "ftplib": NO_SOCKETS,
    "imaplib": NO_SOCKETS,
    "poplib": NO_SOCKETS,
    "smtplib": NO_SOCKETS,
    "xmlrpc": NO_SOCKETS,
    "multiprocessing": NO_PROCESSES,
    "subprocess": NO_PROCESSES,
    "concurrent.futures": "no thread can be started; use asyncio.gather",
    "ctypes": "there is no shared library to load",
}
THREADS = frozenset({"threading.Thread", "threading.Timer", "_thread.start_new_thread"})
FILES = frozenset({"open", "io.open", "os.open", "tempfile.NamedTemporaryFile"})


def check_modules(worker: WorkerConfig, sources: list[Source], root: Path) -> Iterator[Finding]:
    """Yield the findings for imports, threads and files of each module, and vendored packages."""
    for source in sources:
        file = relative(source.file, root)
        if source.error is not None:
            yield Finding(
                file, source.error.lineno or 1, "error", "syntax", source.error.msg, "Correct it"
            )
        seen: set[tuple[int, str]] = set()
        for name, node in imports(source):
            finding = _import(worker, name, node, file)
            if finding is not None and (node.lineno, finding.problem) not in seen:
                seen.add((node.lineno, finding.problem))
                yield finding
        yield from _calls(source, file)
    yield from _vendored(worker, root)


def _import(worker: WorkerConfig, name: str, node: ast.stmt, file: str) -> Finding | None:
    top = name.partition(".")[0]
    line = node.lineno
    if top == "src" and not is_own(worker.main.parent, "src"):
        problem = "the folder of `main` is itself on the import path, so there is no `src`"
        return Finding(file, line, "error", "import", problem, "Leave out the prefix `src.`")
    if top in LIBRARY and (own := own_file(worker.main.parent, top)) is not None:
        shown = relative(own, worker.main.parent)
        problem = f"{top!r} is the standard library's module, not {shown}: an import finds it first"
        return Finding(file, line, "warning", "import", problem, f"Rename {shown} if it is meant")
    if top in SDK or is_own(worker.main.parent, top):
        return None
    if top in ABSENT or top in REMOVED:
        problem = f"the platform's Python has no module {top!r}"
        return Finding(file, line, "error", "import", problem, "Do without it")
    if top in NOT_EVERYWHERE or top in ADDED:
        problem = f"module {top!r} is not in every Python that the platform has had"
        return Finding(file, line, "warning", "import", problem, "Do without it")
    useless = USELESS.get(name) or USELESS.get(top)
    if useless is not None:
        problem = f"{name} imports on the platform, and fails at its first use"
        return Finding(file, line, "error", "import", problem, useless.capitalize())
    if top in sys.stdlib_module_names or _is_vendored(worker, top):
        return None
    if _awaits_packages(worker):
        problem = f"no module {top!r} yet: pyproject.toml has dependencies that are not vendored"
        return Finding(file, line, "warning", "import", problem, "Run `uv run pywrangler sync`")
    problem = f"no module {top!r}: not in the standard library, beside `main` or in python_modules"
    cure = "Add it to `dependencies` in pyproject.toml, then `uv run pywrangler sync`"
    return Finding(file, line, "error", "import", problem, cure)


def _awaits_packages(worker: WorkerConfig) -> bool:
    """True if packages are declared but none is vendored, as after a clone."""
    if any(Path(folder).is_dir() for folder in module_folders(worker.main)[1:]):
        return False
    file = worker.file.parent / "pyproject.toml"
    return file.is_file() and bool(read_table(file).get("project", {}).get("dependencies"))


def _is_vendored(worker: WorkerConfig, top: str) -> bool:
    folders = [Path(each) for each in module_folders(worker.main)[1:]]
    return any(
        (folder / top).is_dir() or any((folder / f"{top}{end}").is_file() for end in all_suffixes())
        for folder in folders
    )


def _calls(source: Source, file: str) -> Iterator[Finding]:
    names = aliases(source.tree)
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call):
            continue
        called = dotted(node.func) or ""
        first, _, rest = called.partition(".")
        called = ".".join(filter(None, (names.get(first, first), rest)))
        if called in THREADS:
            cure = "Use asyncio (`asyncio.to_thread` runs its function at once)"
            yield Finding(file, node.lineno, "error", "thread", "no thread can be started", cure)
        elif called in FILES:
            problem = "files are memory of one isolate there, gone with it; edgesim has none"
            cure = "Keep data in R2, or in a module of its own"
            yield Finding(file, node.lineno, "warning", "file", problem, cure)


def _vendored(worker: WorkerConfig, root: Path) -> Iterator[Finding]:
    """Yield an error for each vendored native library that is not WebAssembly."""
    for folder in module_folders(worker.main)[1:]:
        for file in sorted(Path(folder).rglob("*.so")):
            if "wasm32" not in file.name and not file.read_bytes().startswith(b"\0asm"):
                problem = "a native library for this machine, not for WebAssembly"
                cure = "Vendor packages with `uv run pywrangler sync`, which takes the right ones"
                yield Finding(relative(file, root), 1, "error", "package", problem, cure)
