"""Iceberg's REST catalog protocol, for the buckets of R2 Data Catalog sinks.

``/cdn-cgi/edgesim/catalog/<bucket>`` is the catalog's URI, ``edgesim_<bucket>`` its warehouse.
Clients read data and metadata files through the S3 API, whose address and key a table's answer
contains.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgesim.dev.access import Access, bearer
from edgesim.dev.front import Front
from edgesim.dev.s3_api.client_settings import settings
from edgesim.errors import EdgesimError, PlatformError, hint
from edgesim.pipelines.iceberg import wire
from edgesim.pipelines.iceberg.catalog import (
    NAMESPACE_SEPARATOR,
    Catalog,
    CatalogError,
    CatalogState,
    LoadedTable,
    bad_request,
    decoded,
    head_of,
    named,
    shown,
)
from edgesim.pipelines.iceberg.engine import TableError
from edgesim.simulator import Simulator
from edgesim.simulator.primitives import ACCOUNT

PREFIX = "/cdn-cgi/edgesim/catalog"
REQUEST_BYTES_MAX = 5_000_000
_PAGE, _PAGE_MAX = 100, 1000
"""Entries of a page, and the most that a client may ask for; the platform's numbers."""
_NUMBER = re.compile("[0-9]{1,18}")
_NAMESPACE = "/v1/{prefix}/namespaces/{namespace}"
_TABLE = f"{_NAMESPACE}/tables/{{table}}"

log = structlog.get_logger()

Endpoint = Callable[[Catalog, Request], Awaitable[Any]]


class _Namespace(msgspec.Struct):
    """Body of a namespace's creation."""

    namespace: list[str]
    properties: dict[str, Any] = {}


class _Properties(msgspec.Struct):
    """Body of a change of a namespace's properties."""

    removals: list[str] = []
    updates: dict[str, Any] = {}


class _NewTable(msgspec.Struct, rename="kebab"):
    """The parts of a table's creation that are not the table's metadata."""

    name: str
    stage_create: bool = False


class _Registration(msgspec.Struct, rename="kebab"):
    """Body of the registration of a table's metadata file."""

    name: str
    metadata_location: str


class _Place(msgspec.Struct):
    """A table's namespace and name."""

    namespace: list[str]
    name: str


class _Renaming(msgspec.Struct):
    """Body of a table's renaming."""

    source: _Place
    destination: _Place


def catalog_routes(front: Front, access: Access) -> list[Route]:
    """The protocol's endpoints, for programs that may use the admin endpoints."""

    def guarded(endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        async def serve(request: Request) -> Response:
            try:
                refusal = access.refusal(request.scope, front.edge)
                if refusal is not None:
                    status = 403 if bearer(request.headers) else 401
                    raise CatalogError(status, "NotAuthorizedException", refusal)
                catalog = _catalog(await front.simulator(), request)
                result = await endpoint(catalog, request)
                return Response(status_code=204) if result is None else JSONResponse(result)
            except TableError as error:
                return _failure(bad_request(error))
            except CatalogError as error:
                return _failure(error)
            except PlatformError as error:
                return _failure(CatalogError(400, "BadRequestException", str(error)))
            except ClientDisconnect:
                return Response(status_code=400)
            except EdgesimError as error:
                log.error("catalog request failed", error=str(error))
                return _failure(CatalogError(503, "ServiceUnavailableException", str(error)))
            except RecursionError:
                problem = "it is nested too deeply"
                return _failure(CatalogError(400, "BadRequestException", problem))

        return serve

    def route(path: str, method: str, endpoint: Endpoint) -> Route:
        made = Route(f"{PREFIX}/{{bucket}}{path}", guarded(endpoint), methods=[method])
        made.methods = {method}  # without the HEAD that Starlette adds to GET
        return made

    return [
        route(path, method, endpoint)
        for (method, path), endpoint in {("GET", "/v1/config"): _config, **_ENDPOINTS}.items()
    ]


# --- namespaces ---


async def _config(catalog: Catalog, request: Request) -> Any:
    warehouse = f"{ACCOUNT}_{catalog.bucket.name}"
    if request.query_params.get("warehouse", warehouse) != warehouse:
        problem = f"no such warehouse; that of this URI is {warehouse}"
        raise CatalogError(404, "NotFoundException", problem)
    endpoints = [f"{method} {path}" for method, path in _ENDPOINTS]
    prefix = catalog.folder.rpartition("/")[2]
    return {"defaults": {}, "overrides": {"prefix": prefix}, "endpoints": endpoints}


async def _namespaces(catalog: Catalog, request: Request) -> Any:
    state = await catalog.state()
    parent = request.query_params.get("parent", "")
    if parent:
        state.check_namespace(parent)
    depth = len(parent.split(NAMESPACE_SEPARATOR)) + 1 if parent else 1
    start = parent + NAMESPACE_SEPARATOR if parent else ""
    below = {
        tuple(each.split(NAMESPACE_SEPARATOR)[:depth])
        for each in state.namespaces
        if each.startswith(start)
    }
    return _page(request, "namespaces", [list(each) for each in sorted(below)])


async def _create_namespace(catalog: Catalog, request: Request) -> Any:
    wanted = decoded(await _body(request), _Namespace, "the body")
    name = NAMESPACE_SEPARATOR.join(wanted.namespace)
    if not name or not all(wanted.namespace):
        raise CatalogError(400, "BadRequestException", "a namespace has a name")
    properties = named(wanted.properties)

    def create(state: CatalogState) -> None:
        if name in state.namespaces:
            problem = f"namespace {shown(name)} exists already"
            raise CatalogError(409, "AlreadyExistsException", problem)
        state.namespaces[name] = properties

    await catalog.change(create)
    return {"namespace": wanted.namespace, "properties": properties}


async def _load_namespace(catalog: Catalog, request: Request) -> Any:
    name, state = _namespace(request), await catalog.state()
    state.check_namespace(name)
    return {"namespace": name.split(NAMESPACE_SEPARATOR), "properties": state.namespaces[name]}


async def _namespace_exists(catalog: Catalog, request: Request) -> None:
    (await catalog.state()).check_namespace(_namespace(request))


async def _drop_namespace(catalog: Catalog, request: Request) -> None:
    name = _namespace(request)

    def drop(state: CatalogState) -> None:
        state.check_namespace(name)
        inside = name + NAMESPACE_SEPARATOR
        if state.tables.get(name) or any(each.startswith(inside) for each in state.namespaces):
            problem = f"namespace {shown(name)} is not empty"
            raise CatalogError(409, "NamespaceNotEmptyException", problem)
        del state.namespaces[name]
        state.tables.pop(name, None)

    await catalog.change(drop)


async def _change_namespace(catalog: Catalog, request: Request) -> Any:
    name = _namespace(request)
    wanted = decoded(await _body(request), _Properties, "the body")

    def update(state: CatalogState) -> Any:
        state.check_namespace(name)
        properties = state.namespaces[name]
        removed = [each for each in wanted.removals if properties.pop(each, None) is not None]
        properties |= named(wanted.updates)
        missing = [each for each in wanted.removals if each not in removed]
        return {"removed": removed, "updated": list(wanted.updates), "missing": missing}

    return await catalog.change(update)


# --- tables ---


async def _tables(catalog: Catalog, request: Request) -> Any:
    name, state = _namespace(request), await catalog.state()
    state.check_namespace(name)
    parts = name.split(NAMESPACE_SEPARATOR)
    found = [{"namespace": parts, "name": each} for each in sorted(state.tables.get(name, {}))]
    return _page(request, "identifiers", found)


async def _create_table(catalog: Catalog, request: Request) -> Any:
    body = await _body(request)
    wanted = decoded(body, _NewTable, "the body")
    namespace = _namespace(request)

    def metadata(location: str, table_id: str) -> wire.ClientTable:
        return wire.ClientTable(body, location, table_id, catalog.now_ms())

    if wanted.stage_create:
        (await catalog.state()).check_free(namespace, wanted.name)
        return _loaded(request, LoadedTable("", await catalog.staged(metadata)))
    return _loaded(request, await catalog.create(namespace, wanted.name, metadata))


async def _register(catalog: Catalog, request: Request) -> Any:
    wanted = decoded(await _body(request), _Registration, "the body")
    namespace = _namespace(request)
    content = await catalog.read(wanted.metadata_location)
    head_of(content)

    def add(state: CatalogState) -> None:
        state.check_free(namespace, wanted.name)
        state.tables.setdefault(namespace, {})[wanted.name] = wanted.metadata_location

    await catalog.change(add)
    return _loaded(request, LoadedTable(wanted.metadata_location, content))


async def _load_table(catalog: Catalog, request: Request) -> Any:
    return _loaded(request, await catalog.load(*_table(request)))


async def _table_exists(catalog: Catalog, request: Request) -> None:
    (await catalog.state()).location(*_table(request))


async def _credentials(catalog: Catalog, request: Request) -> Any:
    (await catalog.state()).location(*_table(request))
    place = f"s3://{catalog.bucket.name}/"
    return {"storage-credentials": [{"prefix": place, "config": settings(request)}]}


async def _commit(catalog: Catalog, request: Request) -> Any:
    done = await catalog.commit(*_table(request), await _body(request))
    return {
        "metadata-location": done.location,
        "metadata": decoded(done.content, object, "the table's metadata"),
    }


async def _drop_table(catalog: Catalog, request: Request) -> None:
    """Remove the table from the catalog; its files stay, as without a purge on the platform."""
    namespace, table = _table(request)

    def drop(state: CatalogState) -> None:
        state.location(namespace, table)
        del state.tables[namespace][table]

    await catalog.change(drop)


async def _rename(catalog: Catalog, request: Request) -> None:
    wanted = decoded(await _body(request), _Renaming, "the body")
    old, new = wanted.source, wanted.destination
    source = NAMESPACE_SEPARATOR.join(old.namespace)
    target = NAMESPACE_SEPARATOR.join(new.namespace)

    def rename(state: CatalogState) -> None:
        location = state.location(source, old.name)
        state.check_free(target, new.name)
        del state.tables[source][old.name]
        state.tables.setdefault(target, {})[new.name] = location

    await catalog.change(rename)


_ENDPOINTS: dict[tuple[str, str], Endpoint] = {
    ("GET", "/v1/{prefix}/namespaces"): _namespaces,
    ("POST", "/v1/{prefix}/namespaces"): _create_namespace,
    ("GET", _NAMESPACE): _load_namespace,
    ("HEAD", _NAMESPACE): _namespace_exists,
    ("DELETE", _NAMESPACE): _drop_namespace,
    ("POST", f"{_NAMESPACE}/properties"): _change_namespace,
    ("GET", f"{_NAMESPACE}/tables"): _tables,
    ("POST", f"{_NAMESPACE}/tables"): _create_table,
    ("POST", f"{_NAMESPACE}/register"): _register,
    ("GET", _TABLE): _load_table,
    ("HEAD", _TABLE): _table_exists,
    ("POST", _TABLE): _commit,
    ("DELETE", _TABLE): _drop_table,
    ("GET", f"{_TABLE}/credentials"): _credentials,
    ("POST", "/v1/{prefix}/tables/rename"): _rename,
}
"""The endpoints, as the configuration lists them."""


def _catalog(simulator: Simulator, request: Request) -> Catalog:
    name = request.path_params["bucket"]
    found = simulator.primitives.catalogs.get(name)
    if found is None:
        problem = f"bucket {name!r} has no catalog: no sink of type r2-data-catalog writes to it"
        cure = hint(name, simulator.primitives.catalogs)
        raise CatalogError(404, "NotFoundException", f"{problem}; {cure}")
    return found


def _namespace(request: Request) -> str:
    return str(request.path_params["namespace"])


def _table(request: Request) -> tuple[str, str]:
    return _namespace(request), str(request.path_params["table"])


async def _body(request: Request) -> bytes:
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > REQUEST_BYTES_MAX:
            problem = f"a request has at most {REQUEST_BYTES_MAX} bytes"
            raise CatalogError(413, "BadRequestException", problem)
        pieces.append(piece)
    return b"".join(pieces)


def _loaded(request: Request, table: LoadedTable) -> Any:
    answer: dict[str, Any] = {
        "metadata": decoded(table.content, object, "the table's metadata"),
        "config": settings(request),
    }
    return answer | ({"metadata-location": table.location} if table.location else {})


def _page(request: Request, key: str, entries: list[Any]) -> Mapping[str, Any]:
    """A page of a list; all of it unless the client asks for pages."""
    asked, token = request.query_params.get("pageSize"), request.query_params.get("pageToken")
    if asked is None and token is None:
        return {key: entries}
    size, start = asked or str(_PAGE), token or "0"
    if not (_NUMBER.fullmatch(size) and _NUMBER.fullmatch(start)):
        raise CatalogError(400, "BadRequestException", "pageSize or pageToken is wrong")
    end = int(start) + min(max(int(size), 1), _PAGE_MAX)
    page: dict[str, Any] = {key: entries[int(start) : end]}
    return page | ({"next-page-token": str(end)} if end < len(entries) else {})


def _failure(error: CatalogError) -> Response:
    body = {"message": error.message, "type": error.kind, "code": error.status}
    return JSONResponse({"error": body}, error.status)
