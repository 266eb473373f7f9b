"""Check that drivers support virtual time."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from edgesim import urls
from edgesim.clickhouse import driver as clickhouse_driver
from edgesim.config import Project
from edgesim.errors import UsageError
from edgesim.isolates.host import driver as isolates_driver
from edgesim.queues import driver as queues_driver
from edgesim.r2 import driver as r2_driver


def check_deterministic(project: Project) -> None:
    """UsageError for the first driver that does not support virtual time."""
    tables: list[tuple[str, str, Mapping[str, str]]] = [
        ("r2", project.backends.r2, r2_driver.DRIVERS),
        ("queues", project.backends.queues, queues_driver.DRIVERS),
        ("clickhouse", project.backends.clickhouse, clickhouse_driver.DRIVERS),
    ]
    tables += [
        ("isolation", project.isolation_of(worker), isolates_driver.DRIVERS)
        for worker in project.workers
    ]
    for primitive, url, drivers in tables:
        opener = urls.opener(primitive, url, drivers)
        if not importlib.import_module(opener.__module__).DETERMINISTIC:
            usable = [name for name, place in drivers.items() if _is_deterministic(place)]
            raise UsageError(
                f"the {primitive} backend {urls.redact(url)!r} cannot live in virtual time; replay "
                f"with one of {', '.join(usable)}, or in real time with --speed realtime"
            )


def _is_deterministic(place: str) -> bool:
    try:
        return bool(importlib.import_module(place.partition(":")[0]).DETERMINISTIC)
    except ModuleNotFoundError:  # the driver's library is an optional extra that is not installed
        return False
