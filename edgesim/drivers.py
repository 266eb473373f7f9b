"""Finds the drivers of the stores: edgesim's own and those of installed packages, by URL scheme.

A driver is a module with the function ``open_r2``, ``open_queues``, ``open_kv`` or
``open_clickhouse`` (the Protocol of the primitive is its contract) and with the constants of
Properties.  A package adds drivers by entry points of the groups ``edgesim.r2``,
``edgesim.queues``, ``edgesim.kv`` and ``edgesim.clickhouse``: the name is the scheme, the value the
module.

Modules are imported on use: a driver's library is loaded only by a project that needs it.  Entry
points are read only for schemes that are not built in, because that takes some 10 ms.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec

from edgesim.errors import ConfigError, UsageError
from edgesim.urls import fault, path_of, redact, scheme_of

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

BUILT_IN: Mapping[str, Mapping[str, str]] = {
    "r2": {
        "memory": "edgesim.r2.local.memory",
        "file": "edgesim.r2.local.file",
        "s3": "edgesim.r2.s3.driver",
    },
    "queues": {
        "memory": "edgesim.queues.memory",
        "sqlite": "edgesim.queues.sqlite.driver",
        "nats": "edgesim.queues.nats.driver",
    },
    "kv": {
        "memory": "edgesim.kv.memory",
        "sqlite": "edgesim.kv.sqlite",
        "nats": "edgesim.kv.nats",
    },
    "clickhouse": {
        "chdb": "edgesim.clickhouse.chdb.driver",
        "clickhouse": "edgesim.clickhouse.native.driver",
        "clickhouses": "edgesim.clickhouse.native.driver",
        "clickhouse+http": "edgesim.clickhouse.http",
        "clickhouse+https": "edgesim.clickhouse.http",
    },
}
"""Modules of edgesim's own drivers, by primitive and scheme."""
_EXTRAS = {"nats": "nats"}
"""Libraries that an extra of edgesim installs, with that extra."""


class Properties(msgspec.Struct, frozen=True, rename="upper"):
    """Constants of a driver module, in upper case there: ``DETERMINISTIC = True``."""

    deterministic: bool
    """The store uses neither sockets nor threads in virtual time, so a replay can use it."""
    embedded: bool
    """The store is part of this process, which alone may have it open; otherwise it is a server."""
    shared: bool
    """Other nodes may work on the store at the same time."""
    durable: bool
    """The data is still there when the store is opened again."""
    credentials: dict[str, str] = {}
    """Parameters of the opening function that are secrets, each with its environment variable."""
    files: tuple[str, ...] = ()
    """Paths relative to the URL's that must stay in place while the store is open; "" is itself."""
    blobs: str | None = None
    """Folder relative to the URL's path with the bytes of objects, if an R2 driver has one."""
    library: tuple[str, str, str] | None = None
    """A module that the driver imports on first use only; the problem without it, and its fix."""
    caution: tuple[str, str] | None = None
    """A limitation that ``edgesim doctor`` reports as a warning, and its fix."""


def properties(primitive: str, url: str) -> Properties:
    """The declarations of the driver of ``url``; UsageError if one is missing or wrong."""
    module = _module(primitive, url)
    try:
        return msgspec.convert(module, Properties, from_attributes=True)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"the {primitive} driver {scheme_of(url)!r} (module {module.__name__}): {error}",
            "a driver declares the constants of edgesim.drivers.Properties",
        ) from error


def opener(primitive: str, url: str) -> Any:
    """The function that opens ``url``.

    ConfigError for an unknown scheme, UsageError if the driver cannot be imported.
    """
    module, name = _module(primitive, url), f"open_{primitive}"
    try:
        return getattr(module, name)
    except AttributeError as error:
        raise UsageError(
            f"the {primitive} driver {scheme_of(url)!r} (module {module.__name__}) has no {name}",
            f"see edgesim.{primitive}.driver for its contract",
        ) from error


def files_of(primitive: str, url: str) -> list[Path]:
    """Files and folders of the store at ``url`` that must stay in place while it is open."""
    root = Path(path_of(url).partition("?")[0])
    return [root / name for name in properties(primitive, url).files]


def known(primitive: str) -> list[str]:
    """All schemes of a primitive, those of installed packages last."""
    others = {point.name for point in _entry_points(primitive)}
    return [*BUILT_IN[primitive], *sorted(others - set(BUILT_IN[primitive]))]


def problem(primitive: str, url: str) -> str | None:
    """One line with the fix if ``url`` is invalid or has no driver; None otherwise."""
    scheme = scheme_of(url)
    if scheme in BUILT_IN[primitive] or _entry_points(primitive, scheme):
        return fault(url)
    schemes = known(primitive)
    near = difflib.get_close_matches(scheme, schemes, 1)
    hint = f"did you mean {near[0]}:? " if near else ""
    return (
        f"no driver for {redact(url)!r}; {hint}known schemes: {', '.join(schemes)}; "
        f"a package adds others (entry point group edgesim.{primitive})"
    )


def _module(primitive: str, url: str) -> ModuleType:
    scheme = scheme_of(url)
    if (name := BUILT_IN[primitive].get(scheme)) is not None:
        return _import_built_in(primitive, url, name)
    if (unknown := problem(primitive, url)) is not None:
        raise ConfigError("backends", primitive, unknown)
    points = _entry_points(primitive, scheme)
    if len(points) > 1:
        packages = ", ".join(sorted(map(_package, points)))
        raise UsageError(
            f"several packages have a {primitive} driver for {scheme}: ({packages})",
            "uninstall all but one",
        )
    return _import_installed(primitive, points[0])


def _import_built_in(primitive: str, url: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        raise UsageError(
            f"the {primitive} backend {redact(url)!r} needs the package {error.name!r}",
            f"install it with: pip install 'edgesim[{_EXTRAS[error.name]}]'",
        ) from error


def _import_installed(primitive: str, point: EntryPoint) -> ModuleType:
    try:
        return importlib.import_module(point.module)
    except Exception as error:
        package = _package(point)
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        raise UsageError(
            f"the {primitive} driver {point.name!r} of the package {package} cannot be imported: "
            f"{cause}",
            f"reinstall the package, or remove it: pip uninstall {package}",
        ) from error


def _entry_points(primitive: str, scheme: str | None = None) -> Sequence[EntryPoint]:
    from importlib.metadata import entry_points  # 20 ms that most commands do not need

    found = entry_points(group=f"edgesim.{primitive}")
    return tuple(found if scheme is None else found.select(name=scheme))


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.module
