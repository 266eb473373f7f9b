"""Check that drivers support virtual time."""

from __future__ import annotations

import importlib

import msgspec

from edgesim import drivers, urls
from edgesim.config import Project
from edgesim.errors import UsageError
from edgesim.isolates.host import driver as isolates_driver


def check_deterministic(project: Project) -> None:
    """UsageError for the first driver that does not support virtual time."""
    for primitive, url in msgspec.structs.asdict(project.backends).items():
        if not drivers.properties(primitive, url).deterministic:
            usable = [name for name in drivers.known(primitive) if _is_usable(primitive, name)]
            raise _unsuitable(f"{primitive} backend {urls.redact(url)!r}", usable)
    for worker in project.workers:
        level = project.isolation_of(worker)
        if not _is_usable_level(level):
            usable = [name for name in isolates_driver.DRIVERS if _is_usable_level(name)]
            raise _unsuitable(f"isolation level {level!r}", usable)


def _unsuitable(what: str, usable: list[str]) -> UsageError:
    return UsageError(
        f"the {what} cannot live in virtual time; replay with one of {', '.join(usable)}, "
        "or in real time with --speed realtime"
    )


def _is_usable(primitive: str, scheme: str) -> bool:
    try:
        return drivers.properties(primitive, f"{scheme}:").deterministic
    except UsageError:  # the driver cannot be imported, or its library is not installed
        return False


def _is_usable_level(level: str) -> bool:
    opener = urls.opener("isolation", level, isolates_driver.DRIVERS)
    return bool(importlib.import_module(opener.__module__).DETERMINISTIC)
