"""Backend URLs: the scheme selects the driver, which parses the rest."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from edgesim.errors import ConfigError


def scheme_of(url: str) -> str:
    """The part before the first colon."""
    return url.partition(":")[0]


def path_of(url: str) -> str:
    """The part after the first colon, for schemes that name a local path."""
    return url.partition(":")[2]


def opener(primitive: str, url: str, drivers: Mapping[str, str]) -> Any:
    """Import the function that opens ``url`` from a table ``{"scheme": "module:function"}``."""
    target = drivers.get(scheme_of(url))
    if target is None:
        known = ", ".join(sorted(drivers))
        raise ConfigError(
            "backends", primitive, f"no driver for {redact(url)!r}; known schemes: {known}"
        )
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def fault(url: str) -> str | None:
    """The problem of an invalid host or port in the URL; None if it is valid."""
    try:
        for host in urlsplit(url).netloc.split(","):
            _ = urlsplit(f"//{host}").port
    except ValueError as error:
        return f"{url!r} is not a valid URL ({error}); write {scheme_of(url)}://HOST:PORT"
    return None


def redact(url: str) -> str:
    """The URL without its user and password, for logs and messages."""
    parts = urlsplit(url)
    if parts.username is None and parts.password is None:
        return url
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, parts.query, ""))


def same_place(url: str) -> str:
    """Normalise a URL, so that two URLs of the same place are equal.

    User and password are removed; hosts and scheme are lower case, hosts and options sorted, local
    paths resolved.
    """
    scheme, _, path = url.partition(":")
    if not path.startswith("//"):
        return f"{scheme.lower()}:{Path(path).resolve() if path else ''}"
    parts = urlsplit(url)
    hosts = sorted(parts.netloc.rpartition("@")[2].lower().split(","))
    options = "&".join(sorted(each for each in parts.query.split("&") if each))
    return urlunsplit((scheme.lower(), ",".join(hosts), parts.path.rstrip("/"), options, ""))
