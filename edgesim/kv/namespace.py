"""A KV namespace: the platform's limits and errors over any driver.

Limits and error texts are those of workerd and Miniflare.  A read sees the last completed write at
once; on the platform other locations may see it up to 60 s later.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

import msgspec

from edgesim.clock import Clock
from edgesim.errors import PlatformError
from edgesim.kv.driver import KvDriver, KvEntry, KvKey
from edgesim.model import Body

KEY_BYTES_MAX = 512
VALUE_BYTES_MAX = 25 << 20
COUNTED_BYTES_MAX = 4 * VALUE_BYTES_MAX
"""Size at which counting a stream over the limit ends."""
METADATA_BYTES_MAX = 1024
BULK_KEYS_MAX = 100
LIST_KEYS_MAX = 1000
TTL_SECONDS_MIN = 60
CACHE_TTL_SECONDS_MIN = 30
_BULK_TYPES = ("text", "json")


class KvListing(msgspec.Struct, frozen=True):
    """One page of keys; ``cursor`` is that of the next page, None after the last."""

    keys: Sequence[KvKey]
    cursor: str | None = None


def failed(call: str, status: int, problem: str) -> PlatformError:
    """The error of a call that the platform's service refuses."""
    return PlatformError(f"KV {call} failed: {status} {problem}")


class KvOperations(msgspec.Struct):
    """Billed operations of a namespace since the start; each key of a bulk read is one."""

    reads: int = 0
    writes: int = 0
    deletes: int = 0
    lists: int = 0


class KvNamespace:
    """One namespace, named by its id."""

    def __init__(self, identifier: str, driver: KvDriver, clock: Clock) -> None:
        self.id = identifier
        self._driver = driver
        self._clock = clock
        self.operations = KvOperations()

    async def get(self, key: str, cache_ttl: int | None = None) -> KvEntry | None:
        """Return the entry of a key; None if there is none, or if it has expired."""
        _check_name(key)
        _check_length(key, "GET")
        _check_cache_ttl(cache_ttl, "GET")
        self.operations.reads += 1
        return await self._driver.get(self.id, key, self._clock.now())

    async def get_many(
        self, keys: Sequence[str], kind: str = "text", cache_ttl: int | None = None
    ) -> dict[str, KvEntry | None]:
        """Return the entries of up to 100 keys, in their order."""
        call = "GET_BULK"
        if kind not in _BULK_TYPES:
            raise failed(call, 400, f'"{kind}" is not a valid type. Use "json" or "text"')
        if len(keys) > BULK_KEYS_MAX:
            raise failed(call, 400, f"You can request a maximum of {BULK_KEYS_MAX} keys")
        if not keys:
            raise failed(call, 400, "You must request a minimum of 1 key")
        for key in keys:
            _check_bulk_key(key)
        _check_cache_ttl(cache_ttl, call)
        found: dict[str, KvEntry | None] = {}
        size = 0
        for key in dict.fromkeys(keys):
            self.operations.reads += 1
            entry = found[key] = await self._driver.get(self.id, key, self._clock.now())
            size += 0 if entry is None else len(entry.value)
            if size > VALUE_BYTES_MAX:
                megabytes = VALUE_BYTES_MAX >> 20
                problem = f"Total size of request exceeds the limit of {megabytes}MB"
                raise failed(call, 413, problem)
            if kind == "json" and entry is not None and not _is_json(entry.value):
                problem = "At least one of the requested keys corresponds to a non-json value"
                raise failed(call, 400, problem)
        return found

    async def put(
        self,
        key: str,
        value: Body,
        *,
        expiration: int | None = None,
        expiration_ttl: int | None = None,
        metadata: str | None = None,
    ) -> None:
        """Store a value; ``expiration`` in Unix seconds, or relative; ``metadata`` as JSON."""
        _check_name(key)
        _check_length(key, "PUT")
        now = self._clock.now()
        expires = _expiration(int(now), expiration, expiration_ttl)
        size = 0 if metadata is None else len(metadata.encode())
        if size > METADATA_BYTES_MAX:
            problem = f"Metadata length of {size} exceeds limit of {METADATA_BYTES_MAX}."
            raise failed("PUT", 413, problem)
        entry = KvEntry(await _whole(value), expires, metadata)
        self.operations.writes += 1
        await self._driver.put(self.id, key, entry, now)

    async def delete(self, key: str) -> None:
        """Remove the entry of a key, if there is one."""
        _check_name(key)
        _check_length(key, "DELETE")
        self.operations.deletes += 1
        await self._driver.delete(self.id, key)

    async def list(
        self, prefix: str = "", limit: int | None = None, cursor: str | None = None
    ) -> KvListing:
        """Return the keys that begin with ``prefix``, up to 1,000 a page."""
        wanted = limit if limit is not None and limit > 0 else LIST_KEYS_MAX
        if wanted > LIST_KEYS_MAX:
            problem = (
                f"Invalid key_count_limit of {wanted}. Please specify an integer less than "
                f"{LIST_KEYS_MAX}."
            )
            raise failed("GET", 400, problem)
        _check_length(prefix, "GET")
        after = _after(cursor) if cursor else ""
        now = self._clock.now()
        self.operations.lists += 1
        found = await self._driver.list(self.id, prefix, after, wanted + 1, now)
        if len(found) <= wanted:
            return KvListing(found)
        last = found[wanted - 1].name
        return KvListing(found[:wanted], base64.b64encode(last.encode()).decode())


def _check_name(key: str) -> None:
    if not key:
        raise PlatformError("Key name cannot be empty.", "TypeError")
    if key in {".", ".."}:
        raise PlatformError(f'"{key}" is not allowed as a key name.', "TypeError")


def _check_bulk_key(key: str) -> None:
    if not key:
        raise failed("GET_BULK", 400, "Key names must not be empty")
    if key in {".", ".."}:
        problem = f'Illegal key name "{key}". Please use a different name.'
        raise failed("GET_BULK", 400, problem)
    _check_length(key, "GET_BULK")


def _check_length(key: str, call: str) -> None:
    size = len(key.encode())
    if size > KEY_BYTES_MAX:
        problem = f"UTF-8 encoded length of {size} exceeds key length limit of {KEY_BYTES_MAX}."
        raise failed(call, 414, problem)


def _check_cache_ttl(seconds: int | None, call: str) -> None:
    if seconds is not None and seconds < CACHE_TTL_SECONDS_MIN:
        problem = (
            f"Invalid cache_ttl of {seconds}. Cache TTL must be at least {CACHE_TTL_SECONDS_MIN}."
        )
        raise failed(call, 400, problem)


def _expiration(now: int, expiration: int | None, ttl: int | None) -> int | None:
    """The time at which an entry expires; a TTL takes precedence."""
    if ttl is not None:
        if ttl <= 0:
            problem = f"Invalid expiration_ttl of {ttl}. Please specify integer greater than 0."
            raise failed("PUT", 400, problem)
        if ttl < TTL_SECONDS_MIN:
            problem = (
                f"Invalid expiration_ttl of {ttl}. Expiration TTL must be at least "
                f"{TTL_SECONDS_MIN}."
            )
            raise failed("PUT", 400, problem)
        return now + ttl
    if expiration is None:
        return None
    if expiration <= now:
        problem = (
            f"Invalid expiration of {expiration}. Please specify integer greater than the current "
            "number of seconds since the UNIX epoch."
        )
        raise failed("PUT", 400, problem)
    if expiration < now + TTL_SECONDS_MIN:
        problem = (
            f"Invalid expiration of {expiration}. Expiration times must be at least "
            f"{TTL_SECONDS_MIN} seconds in the future."
        )
        raise failed("PUT", 400, problem)
    return expiration


async def _whole(value: Body) -> bytes:
    """The bytes of a value; a stream over the limit is counted, and its bytes are not kept."""
    if isinstance(value, bytes):
        _check_size(len(value))
        return value
    _check_size(value.length or 0)
    chunks: list[bytes] = []
    size = 0
    async for chunk in value:
        size += len(chunk)
        if size > COUNTED_BYTES_MAX:
            break
        if size > VALUE_BYTES_MAX:
            chunks.clear()
        else:
            chunks.append(chunk)
    _check_size(size)
    return b"".join(chunks)


def _check_size(size: int) -> None:
    if size > VALUE_BYTES_MAX:
        problem = f"Value length of {size} exceeds limit of {VALUE_BYTES_MAX}."
        raise failed("PUT", 413, problem)


def _is_json(value: bytes) -> bool:
    try:
        msgspec.json.decode(value.decode("utf-8", "replace"))
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _after(cursor: str) -> str:
    """The last key of the page that ended with this cursor."""
    try:
        return base64.b64decode(cursor, validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise failed("GET", 400, "Invalid cursor.") from error
