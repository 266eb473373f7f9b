"""Routes: URL patterns that select a Worker.

Source: Cloudflare's documentation of routes.  A pattern is ``[scheme://]host/path``; ``*`` is
allowed only at the start of the host and at the end of the path.  A pattern has no query, but is
matched against path and query.  Of several matching patterns, the most specific applies.
"""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

_SCHEMES = ("http", "https")


class RouteConfig(msgspec.Struct, frozen=True):
    """An entry of ``routes``; a custom domain is a host name and matches all of its paths."""

    pattern: str
    zone_name: str | None = None
    zone_id: str | None = None
    custom_domain: bool = False


class Route(msgspec.Struct, frozen=True):
    """A parsed pattern; ``host`` and ``path`` are without their ``*``."""

    host: str
    path: str
    zone: str
    scheme: str | None = None
    subdomains: str = ""
    """"*" for the host and its subdomains, "*." for subdomains only, "" for the host only."""
    prefix: bool = False
    custom_domain: bool = False

    def matches(self, url: str, *, any_scheme: bool = False) -> bool:
        """True if the route matches the absolute URL; its port is ignored."""
        parts = urlsplit(url)
        if self.scheme is not None and parts.scheme != self.scheme and not any_scheme:
            return False
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        right_path = path.startswith(self.path) if self.prefix else path == self.path
        return right_path and self._matches_host((parts.hostname or "").lower())

    def _matches_host(self, host: str) -> bool:
        below = not self.host or host.endswith(f".{self.host}")
        return {"": host == self.host, "*": host == self.host or below, "*.": below}[
            self.subdomains
        ]

    def specificity(self) -> tuple[object, ...]:
        """Sort key: of several matching routes the greatest applies; the host is compared first."""
        return (
            not self.subdomains,
            len(self.host),
            self.subdomains == "*.",
            not self.prefix,
            len(self.path),
            self.scheme is not None,
        )


def parse_route(route: str | RouteConfig) -> Route:
    """Parse an entry of ``routes``; ValueError names the error in the pattern."""
    config = RouteConfig(route) if isinstance(route, str) else route
    scheme, separator, rest = config.pattern.rpartition("://")
    if separator and scheme not in _SCHEMES:
        raise ValueError(f"{config.pattern!r}: the scheme is http, https or left out")
    host, _, path = rest.partition("/")
    if config.custom_domain:
        if "*" in rest or "/" in rest or separator:
            raise ValueError(f"{config.pattern!r}: a custom domain is a host name and nothing more")
        return Route(host.lower(), "", config.zone_name or _zone_of(host), None, "", True, True)
    subdomains = "*." if host.startswith("*.") else "*" if host.startswith("*") else ""
    host = host.removeprefix(subdomains).lower()
    prefix = path.endswith("*")
    path = "/" + path.removesuffix("*")
    if "*" in host or "*" in path:
        raise ValueError(f"{config.pattern!r}: a star may only begin the host or end the path")
    if "?" in path or "#" in path:
        raise ValueError(f"{config.pattern!r}: a pattern has no query and no fragment")
    if ":" in host or not (host or subdomains):
        raise ValueError(f"{config.pattern!r}: needs a host name, without a port")
    zone = config.zone_name or _zone_of(host)
    return Route(host, path, zone, scheme or None, subdomains, prefix)


def _zone_of(host: str) -> str:
    """Zone of a host if the file names none: its last two labels."""
    return ".".join(host.lower().split(".")[-2:])
