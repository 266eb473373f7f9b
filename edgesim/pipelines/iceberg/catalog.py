"""The Iceberg catalog of a bucket: its namespaces, and the current metadata of each table.

All of it is one object of the bucket, which changes by compare-and-swap, so that several nodes and
clients can commit at the same time: a commit that finds the table changed begins again.  Metadata
and data files have keys as on the platform:
``__r2_data_catalog/<catalog id>/<table id>/{metadata,data}/...``.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, TypeVar

import anyio
import msgspec

from edgesim.clock import Clock
from edgesim.errors import PlatformError
from edgesim.model import read_all
from edgesim.pipelines.iceberg import wire
from edgesim.pipelines.iceberg.engine import IcebergEngine, TableError
from edgesim.r2.bucket import Bucket, R2ObjectBody
from edgesim.r2.options import Conditional

PREFIX = "__r2_data_catalog"
INGEST_COLUMN = "__ingest_ts"
"""The column that a sink adds to its table: the time of the window's first record."""
NAMESPACE_SEPARATOR = "\x1f"
"""Between the parts of a namespace, as in URLs of the REST protocol."""
ATTEMPTS_MAX = 20
FILE_BYTES_MAX = 64_000_000
"""Largest file of metadata that is read: Workers can write to the bucket too."""

T = TypeVar("T")


class CatalogError(PlatformError):
    """A request that the catalog refuses: HTTP status, and type of the REST protocol's error."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


class CatalogState(msgspec.Struct):
    """Properties of each namespace, and the metadata location of each table by namespace."""

    namespaces: dict[str, dict[str, str]] = {}
    tables: dict[str, dict[str, str]] = {}

    def check_namespace(self, namespace: str) -> None:
        """CatalogError if there is no such namespace."""
        if namespace not in self.namespaces:
            raise CatalogError(404, "NoSuchNamespaceException", f"no namespace {shown(namespace)}")

    def location(self, namespace: str, table: str) -> str:
        """The table's metadata location; CatalogError if there is no such table."""
        found = self.tables.get(namespace, {}).get(table)
        if found is None:
            problem = f"no table {shown(namespace)}.{table}"
            raise CatalogError(404, "NoSuchTableException", problem)
        return found

    def check_free(self, namespace: str, table: str) -> None:
        """CatalogError if the namespace does not exist, or has such a table."""
        self.check_namespace(namespace)
        if table in self.tables.get(namespace, {}):
            problem = f"table {shown(namespace)}.{table} exists already"
            raise CatalogError(409, "AlreadyExistsException", problem)


class LoadedTable(msgspec.Struct, frozen=True):
    """A table: the location of its current metadata, and its content."""

    location: str
    content: bytes


class SnapshotHead(msgspec.Struct, rename="kebab"):
    """The parts of a snapshot that the platform reads."""

    snapshot_id: int
    manifest_list: str = ""
    summary: dict[str, str] = {}


class TableHead(msgspec.Struct, rename="kebab"):
    """The parts of a table's metadata that the platform reads."""

    location: str
    table_uuid: str = ""
    current_snapshot_id: int | None = None
    snapshots: list[SnapshotHead] = []
    properties: dict[str, str] = {}

    @property
    def manifest_list(self) -> str:
        """Location of the current snapshot's manifest list; empty if there is no snapshot."""
        found = (each for each in self.snapshots if each.snapshot_id == self.current_snapshot_id)
        return next((each.manifest_list for each in found), "")


def decoded(content: bytes, kind: type[T], what: str) -> T:
    """Decode a file of the catalog, or a request; CatalogError if that is impossible."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CatalogError(400, "BadRequestException", f"{what} is damaged: {error}") from error


def head_of(content: bytes) -> TableHead:
    """Read a table's metadata; CatalogError if it is none."""
    return decoded(content, TableHead, "the table's metadata")


def shown(namespace: str) -> str:
    """A namespace as people write it."""
    return namespace.replace(NAMESPACE_SEPARATOR, ".")


class Catalog:
    """The catalog of one bucket."""

    def __init__(self, bucket: Bucket, engine: IcebergEngine, clock: Clock) -> None:
        self.bucket = bucket
        self.engine = engine
        self._clock = clock
        self._changing = anyio.Lock()
        digest = blake2b(bucket.name.encode(), digest_size=16, person=b"iceberg").digest()
        self.folder = f"{PREFIX}/{uuid.UUID(bytes=digest, version=4)}"
        self._state_key = f"{self.folder}/catalog.json"

    def now_ms(self) -> int:
        """Unix time in milliseconds."""
        return self._clock.now_ms()

    async def state(self) -> CatalogState:
        """The namespaces and tables now."""
        return (await self._read_state())[0]

    async def change(self, change: Callable[[CatalogState], T]) -> T:
        """Change namespaces and tables; durable on return.  ``change`` may be called again."""
        for _ in range(ATTEMPTS_MAX):
            async with self._changing:
                state, etag = await self._read_state()
                result = change(state)
                if await self._write_state(state, etag):
                    return result
        raise CatalogError(503, "ServiceUnavailableException", "too many commits at once")

    async def load(self, namespace: str, table: str) -> LoadedTable:
        """A table's current metadata; CatalogError if there is no such table."""
        location = (await self.state()).location(namespace, table)
        return LoadedTable(location, await self.read(location))

    async def create(
        self, namespace: str, table: str, metadata: Callable[[str, str], wire.IcebergFrame]
    ) -> LoadedTable:
        """Create a table; ``metadata`` makes the request for a location and a table id."""
        (await self.state()).check_free(namespace, table)
        created = await self.staged(metadata)
        location = await self._write_metadata(created, head_of(created), "", self._clock.uuid())

        def add(state: CatalogState) -> None:
            state.check_free(namespace, table)
            state.tables.setdefault(namespace, {})[table] = location

        await self.change(add)
        return LoadedTable(location, created)

    async def staged(self, metadata: Callable[[str, str], wire.IcebergFrame]) -> bytes:
        """The metadata of a table that is not created yet."""
        table_id = self._clock.uuid()
        location = f"s3://{self.bucket.name}/{self.folder}/{table_id}"
        asked = await self.engine.ask(metadata(location, table_id), wire.Metadata)
        self.check_place(head_of(asked.content).location)
        return asked.content

    async def commit(self, namespace: str, table: str, request: bytes) -> LoadedTable:
        """Apply a client's commit; CatalogError or TableError if that is impossible."""
        state = await self.state()
        state.check_namespace(namespace)
        old = state.tables.get(namespace, {}).get(table, "")
        base = await self.read(old) if old else b""
        asked = wire.Commit(base, old, request, self.now_ms())
        content = (await self.engine.ask(asked, wire.Metadata)).content
        head = head_of(content)
        self.check_place(head.location)
        location = await self._write_metadata(content, head, old, self._clock.uuid())
        if not await self._replace(namespace, table, old, location):
            raise CatalogError(409, "CommitFailedException", "the table has changed; try again")
        return LoadedTable(location, content)

    async def append(
        self,
        namespace: str,
        table: str,
        commit: str,
        make: Callable[[LoadedTable, bytes, int], wire.AppendFile | None],
    ) -> None:
        """Commit a snapshot; ``make`` gives None if the table has it already.

        ``commit`` is in the name of the metadata file.  A commit that is repeated after a crash
        overwrites the file: readers without a catalog take the one with the highest number.
        ``make`` gets the table, the current manifest list and the time, and is called again if the
        table changes meanwhile.
        """
        for _ in range(ATTEMPTS_MAX):
            loaded = await self.load(namespace, table)
            current = head_of(loaded.content).manifest_list
            listed = await self.read(current) if current else b""
            asked = make(loaded, listed, self.now_ms())
            if asked is None:
                return
            done = await self.engine.ask(asked, wire.Appended)
            await self.write(asked.manifest_location, done.manifest)
            await self.write(asked.list_location, done.manifest_list)
            head = head_of(done.content)
            location = await self._write_metadata(done.content, head, loaded.location, commit)
            if await self._replace(namespace, table, loaded.location, location):
                return
        raise CatalogError(503, "ServiceUnavailableException", "too many commits at once")

    async def read(self, location: str) -> bytes:
        """The content of a file of the catalog; CatalogError if it is missing or too large."""
        found = await self._get(self.key_of(location))
        if found is None:
            raise CatalogError(404, "NotFoundException", f"{location} is missing")
        return await read_all(found.body)

    async def write(self, location: str, content: bytes) -> None:
        """Store a file of the catalog."""
        await self.bucket.put(self.key_of(location), content)

    def key_of(self, location: str) -> str:
        """The key of a location; CatalogError if it is in another bucket."""
        place = f"s3://{self.bucket.name}/"
        if not location.startswith(place):
            raise CatalogError(400, "BadRequestException", f"{location} is not in {place}")
        return location.removeprefix(place)

    def check_place(self, location: str) -> None:
        """CatalogError for a table outside the folder of the catalog, as on the platform."""
        if not self.key_of(location).startswith(f"{self.folder}/"):
            problem = f"a table's location is below s3://{self.bucket.name}/{self.folder}/"
            raise CatalogError(400, "BadRequestException", problem)

    async def _replace(self, namespace: str, table: str, old: str, new: str) -> bool:
        """Make ``new`` the table's metadata, if ``old`` still is; "" is no table."""

        def swap(state: CatalogState) -> bool:
            state.check_namespace(namespace)
            tables = state.tables.setdefault(namespace, {})
            if tables.get(table, "") != old:
                return False
            tables[table] = new
            return True

        return await self.change(swap)

    async def _write_metadata(self, content: bytes, head: TableHead, old: str, commit: str) -> str:
        name = old.rpartition("/")[2].partition("-")[0]
        number = int(name) + 1 if name.isascii() and name.isdigit() else 0
        location = f"{head.location}/metadata/{number:05d}-{commit}.metadata.json"
        await self.write(location, content)
        return location

    async def _read_state(self) -> tuple[CatalogState, str | None]:
        found = await self._get(self._state_key)
        if found is None:
            return CatalogState(), None
        place = f"object {self._state_key} of bucket {self.bucket.name}, the catalog itself,"
        content = await read_all(found.body)
        return decoded(content, CatalogState, place), found.object.etag

    async def _get(self, key: str) -> R2ObjectBody | None:
        found = await self.bucket.get(key)
        if not isinstance(found, R2ObjectBody):
            return None
        if found.object.size > FILE_BYTES_MAX:
            await found.body.aclose()
            size = f"{found.object.size} bytes; the catalog reads {FILE_BYTES_MAX}"
            raise CatalogError(400, "BadRequestException", f"object {key} has {size}")
        return found

    async def _write_state(self, state: CatalogState, etag: str | None) -> bool:
        unchanged = (
            Conditional(etag_does_not_match=("*",))
            if etag is None
            else Conditional(etag_matches=(etag,))
        )
        content = msgspec.json.encode(state)
        return await self.bucket.put(self._state_key, content, only_if=unchanged) is not None


def bad_request(error: TableError) -> CatalogError:
    """The error of a refused request, as a client of the catalog sees it."""
    if error.kind == "conflict":
        return CatalogError(409, "CommitFailedException", error.problem)
    return CatalogError(400, "BadRequestException", error.problem)


def named(properties: Mapping[str, Any]) -> dict[str, str]:
    """Properties with text values only."""
    return {str(name): str(value) for name, value in properties.items()}
