"""Operator actions on KV namespaces."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncIterator
from typing import Any

import anyio.lowlevel

from edgesim.errors import UsageError, hint
from edgesim.kv.driver import KvKey
from edgesim.kv.namespace import KvNamespace
from edgesim.operations.paging import LIST_PAGE, PagedRows, iso
from edgesim.simulator import Simulator


async def ls(simulator: Simulator, namespace: str | None = None, prefix: str = "") -> PagedRows:
    """The keys of a namespace, or without one the namespaces and their bindings."""
    if namespace is None:
        bound = simulator.project.kv_namespaces()
        rows = [{"namespace": name, "bindings": ", ".join(bound[name])} for name in sorted(bound)]
        return PagedRows(_one_page(rows))
    return PagedRows(_pages(known_namespace(simulator, namespace), prefix))


async def _one_page(rows: list[dict[str, Any]]) -> AsyncIterator[list[dict[str, Any]]]:
    yield rows


async def _pages(namespace: KvNamespace, prefix: str) -> AsyncIterator[list[dict[str, Any]]]:
    cursor: str | None = None
    while True:
        page = await namespace.list(prefix, LIST_PAGE, cursor)
        yield [_described(key) for key in page.keys]
        cursor = page.cursor
        if cursor is None:
            return
        await anyio.lowlevel.checkpoint()  # local stores never yield by themselves


def _described(key: KvKey) -> dict[str, Any]:
    expiration = None if key.expiration is None else iso(key.expiration * 1000)
    metadata = None if key.metadata is None else json.loads(key.metadata)
    return {"key": key.name, "expiration": expiration, "metadata": metadata}


async def get(simulator: Simulator, namespace: str, key: str) -> dict[str, Any]:
    """An entry; the value is base64."""
    found = await known_namespace(simulator, namespace).get(key)
    if found is None:
        raise UsageError(f"namespace {namespace!r} has no key {key!r}")
    described = _described(KvKey(key, found.expiration, found.metadata))
    return described | {"value": base64.b64encode(found.value).decode()}


async def put(
    simulator: Simulator,
    namespace: str,
    key: str,
    value: str,
    ttl: int | None = None,
    expiration: int | None = None,
    metadata: Any = None,
) -> dict[str, Any]:
    """Store an entry; the value is base64."""
    try:
        content = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UsageError("value is not base64") from error
    text = None if metadata is None else json.dumps(metadata, ensure_ascii=False)
    await known_namespace(simulator, namespace).put(
        key, content, expiration=expiration, expiration_ttl=ttl, metadata=text
    )
    return {"stored": key}


async def rm(simulator: Simulator, namespace: str, key: str) -> dict[str, Any]:
    """Remove a key; UsageError if there is none."""
    known = known_namespace(simulator, namespace)
    if await known.get(key) is None:
        raise UsageError(f"namespace {namespace!r} has no key {key!r}")
    await known.delete(key)
    return {"removed": key}


def known_namespace(simulator: Simulator, name: str) -> KvNamespace:
    """The KV namespace of that id or binding; UsageError if there is none, or more than one."""
    bound = simulator.project.kv_namespaces()
    ids = [name] if name in bound else [each for each in bound if name in bound[each]]
    if len(ids) == 1:
        return simulator.primitives.namespace(ids[0])
    if ids:
        raise UsageError(
            f"several namespaces are bound as {name!r}", f"name an id: {', '.join(ids)}"
        )
    names = {*bound, *(each for bindings in bound.values() for each in bindings)}
    raise UsageError(f"the project has no KV namespace {name!r}", hint(name, names))
