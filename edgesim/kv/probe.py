"""Check of a key-value store, through any driver: writes, lists, reads and removes an entry."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio

from edgesim.clock import Clock
from edgesim.errors import RunError
from edgesim.kv.driver import KvDriver
from edgesim.kv.namespace import VALUE_BYTES_MAX, KvNamespace
from edgesim.model import Diagnosis

TIDY_SECONDS = 5.0
_ID, _CURE = "edgesim-doctor", "see the log and the disk of the server"


async def probe(driver: KvDriver, clock: Clock, where: str) -> AsyncIterator[Diagnosis]:
    """Check that a value of maximum size can be stored, found and read; report leftovers."""
    namespace, key = KvNamespace(_ID, driver, clock), clock.hex_id()
    found = []
    try:
        found.append(await _round_trip(namespace, key, where))
    except RunError as error:
        found.append(Diagnosis("kv", "problem", error.problem, error.cure or _CURE))
    finally:
        found += await _tidy(namespace, key)
    for finding in found:
        yield finding


async def _round_trip(namespace: KvNamespace, key: str, where: str) -> Diagnosis:
    value = b"x" * VALUE_BYTES_MAX
    await namespace.put(key, value)
    stored, listed = await namespace.get(key), await namespace.list(key)
    if stored is not None and stored.value == value and [key] == [k.name for k in listed.keys]:
        return Diagnosis("kv", "ok", f"{where}: a value was stored and read")
    return Diagnosis("kv", "problem", f"{where}: a value that was stored is not there", _CURE)


async def _tidy(namespace: KvNamespace, key: str) -> list[Diagnosis]:
    said = "it did not answer"
    with anyio.move_on_after(TIDY_SECONDS, shield=True):
        try:
            await namespace.delete(key)
        except RunError as error:
            said = error.problem
        else:
            return []
    problem = f"key {key} of namespace {_ID} may be left behind: {said}"
    return [Diagnosis("kv", "warning", problem, "remove it there")]
