"""Routing of URLs to Workers, by the naming schemes or by the Workers' routes.

A Worker is reached as ``<name>.<anything>.workers.dev``, as ``<name>.localhost`` (edgesim's own
scheme) and by the routes of its wrangler file.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

import msgspec

from edgesim.config import WorkerConfig
from edgesim.config.wrangler import WORKERS_DEV

LOCALHOST = "localhost"


class Target(msgspec.Struct, frozen=True):
    """Worker that a URL leads to; ``zone`` is the domain that its host belongs to."""

    worker: str
    zone: str
    custom_domain: bool = False


class Router:
    """Router over a project's Workers."""

    def __init__(self, workers: Iterable[WorkerConfig]) -> None:
        self.names = {worker.name for worker in workers}
        routes = [(route, worker.name) for worker in workers for route in worker.routes]
        self._routes = sorted(routes, key=lambda each: each[0].specificity(), reverse=True)

    def find(self, url: str, *, any_scheme: bool = False) -> Target | None:
        """Return the Worker that an absolute URL leads to; None if it leads to no local Worker."""
        name, zone = named_by((urlsplit(url).hostname or "").lower())
        if name in self.names:
            return Target(name, zone)
        return self.routed(url, any_scheme=any_scheme)

    def routed(self, url: str, *, any_scheme: bool = False) -> Target | None:
        """Return the Worker with the most specific route for an absolute URL; None without one."""
        for route, worker in self._routes:
            if route.matches(url, any_scheme=any_scheme):
                return Target(worker, route.zone, route.custom_domain)
        return None


def named_by(host: str) -> tuple[str, str]:
    """Return (name, zone) of a host name of the two naming schemes; empty strings for others."""
    for zone in (WORKERS_DEV, LOCALHOST):
        if host.endswith(f".{zone}"):
            return host.removesuffix(f".{zone}").partition(".")[0], zone
    return "", ""
