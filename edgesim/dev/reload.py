"""Reload on save: a module change restarts its Worker, a configuration change reopens the project.

Queued messages and buffered records are in stores and logs, which stay open. An invocation in
flight finishes in the version that it began in. If a version does not load, the old one keeps
serving.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import structlog
import watchfiles

from edgesim.config import Project
from edgesim.config.project import FILE as ACCOUNT_FILE
from edgesim.config.project import STATE
from edgesim.config.wrangler import FILES as WRANGLER_FILES
from edgesim.config.wrangler import JAVASCRIPT
from edgesim.errors import EdgesimError
from edgesim.simulator import Simulator

_SUFFIXES = {".py", ".jsonc", ".json", ".toml", ".sql", *JAVASCRIPT}
_LOOK_MS = 100
"""Polling interval. A cancelled watch ends after at most one; awatch's 5 s would delay stops."""
_SECRET_FILES = re.compile(r"\.(dev\.vars|env)(\.[^.]+)?")

log = structlog.get_logger()


async def changes(project: Project) -> AsyncIterator[set[Path]]:
    """Yield sets of changed, added or removed source and configuration files."""
    folders = {project.root} | {worker.file.parent for worker in project.workers.values()}
    keep = _Sources(project.state, *(folder / STATE for folder in folders))
    async for found in watchfiles.awatch(
        *folders, watch_filter=keep, debounce=200, rust_timeout=_LOOK_MS
    ):
        yield {Path(path) for _, path in found}


class _Sources(watchfiles.DefaultFilter):
    """Accepts sources and configuration, but no file that edgesim itself writes.

    Other commands may use the default state folders while ``dev`` uses another one.
    """

    def __init__(self, *states: Path) -> None:
        super().__init__(ignore_paths=states)

    def __call__(self, change: watchfiles.Change, path: str) -> bool:
        file = Path(path)
        wanted = file.suffix in _SUFFIXES or _SECRET_FILES.fullmatch(file.name) is not None
        return (wanted or _is_moved_package(file)) and super().__call__(change, path)


def _is_moved_package(file: Path) -> bool:
    """True for a folder with modules: the system reports a moved folder, and nothing inside it.

    Installers write a package elsewhere, and then move it into ``python_modules``.
    """
    return file.is_dir() and next(file.rglob("*.py"), None) is not None


def is_configuration(file: Path, project: Project) -> bool:
    """True if a change of this file affects more than one Worker's module."""
    if _SECRET_FILES.fullmatch(file.name):
        return True
    streams = project.dataflow.streams.values()
    if file in {project.root / name for each in streams if (name := each.config.schema)}:
        return True
    return file.name in {ACCOUNT_FILE, *WRANGLER_FILES} or file.suffix == ".sql"


async def reload_workers(simulator: Simulator, files: set[Path]) -> None:
    """Restart the Workers whose modules are among ``files``."""
    for name, config in simulator.project.workers.items():
        if any(file.is_relative_to(config.file.parent) for file in files):
            try:
                await simulator.workers.start(config)
            except EdgesimError as error:
                log.error("not reloaded, the old version goes on", worker=name, error=str(error))
            else:
                log.info("reloaded", worker=name)
