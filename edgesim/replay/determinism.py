"""Check that drivers support virtual time."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import msgspec

from edgesim import drivers, urls
from edgesim.config import Project
from edgesim.errors import UsageError
from edgesim.isolates.host import driver as isolates_driver


def check_deterministic(project: Project) -> None:
    """UsageError for the first driver that does not support virtual time."""
    for primitive, url in msgspec.structs.asdict(project.backends).items():
        if project.uses(primitive) and not drivers.properties(primitive, url).deterministic:
            usable = [name for name in drivers.known(primitive) if _is_usable(primitive, name)]
            raise _unsuitable(f"{primitive} backend {urls.redact(url)!r}", usable)
    for name, worker in project.workers.items():
        level, levels = project.isolation_of(name), isolates_driver.drivers_for(worker.spec())
        if not _is_usable_level(level, levels):
            usable = [each for each in levels if _is_usable_level(each, levels)]
            raise _unsuitable(f"isolation level {level!r} of Worker {name}", usable)


def _unsuitable(what: str, usable: list[str]) -> UsageError:
    others = f"with one of {', '.join(usable)}, or " if usable else ""
    return UsageError(
        f"the {what} cannot live in virtual time; replay {others}in real time with --speed realtime"
    )


def _is_usable(primitive: str, scheme: str) -> bool:
    try:
        return drivers.properties(primitive, f"{scheme}:").deterministic
    except UsageError:  # the driver cannot be imported, or its library is not installed
        return False


def _is_usable_level(level: str, levels: Mapping[str, str]) -> bool:
    opener = urls.opener("isolation", level, levels)
    return bool(importlib.import_module(opener.__module__).DETERMINISTIC)
