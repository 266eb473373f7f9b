"""OpenAPI description of the admin endpoints, made from their types.

The pages, Iceberg's REST catalog and the S3 API are not in it: the latter two have descriptions of
their own.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

import msgspec

from edgesim import operations
from edgesim.dev.endpoints import JSON, TEXT, Endpoint
from edgesim.dev.store_endpoints import WantedOperation

REFERENCE = "#/components/schemas/{name}"
ERRORS = {
    "400": ("Wrong", "a wrong query, body or argument"),
    "403": ("Refused", "the client may not use this"),
    "503": ("Unavailable", "a store does not reply"),
}
"""Replies of every endpoint that needs a token, as text."""


@cache
def description(public: Sequence[Endpoint], guarded: Sequence[Endpoint]) -> dict[str, Any]:
    """The description of all endpoints; the ``public`` ones need no token."""
    endpoints = [*public, *guarded]
    kinds = list(_kinds(endpoints))
    schemas, components = msgspec.json.schema_components(
        [kind for _, kind in kinds], ref_template=REFERENCE
    )
    by_place = {place: schema for (place, _), schema in zip(kinds, schemas, strict=True)}
    open_paths = {endpoint.path for endpoint in public}
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        is_open = endpoint.path in open_paths
        for method in endpoint.methods:
            described = _described(endpoint, method, by_place, is_open=is_open)
            paths.setdefault(endpoint.path, {})[method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "edgesim admin API",
            "version": version("edgesim"),
            "description": "For programs on this machine, or with EDGESIM_ADMIN_TOKEN as token.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {
                name: {"description": text, "content": _content(TEXT, None)}
                for name, text in ERRORS.values()
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _kinds(endpoints: Iterable[Endpoint]) -> Iterator[tuple[object, Any]]:
    """The types that have a schema, each with the place where it is used."""
    for endpoint in endpoints:
        for field in _parameters(endpoint):
            yield (endpoint, field.encode_name), field.type
        for part, kind in (("body", endpoint.body), ("reply", endpoint.reply)):
            if kind is not None and not isinstance(kind, str):
                yield (endpoint, part), kind
    for name in operations.OPERATIONS:
        yield name, operations.arguments_of(name)


def _parameters(endpoint: Endpoint) -> tuple[msgspec.structs.FieldInfo, ...]:
    return () if endpoint.query is None else msgspec.structs.fields(endpoint.query)


def _described(
    endpoint: Endpoint, method: str, schemas: dict[object, Any], *, is_open: bool
) -> dict[str, Any]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", endpoint.path)
    ]
    in_query = [
        {
            "name": field.encode_name,
            "in": "query",
            "required": field.required,
            "schema": schemas[endpoint, field.encode_name]
            | ({} if field.required else {"default": field.default}),
        }
        for field in _parameters(endpoint)
    ]
    reply = _content(endpoint.reply, schemas.get((endpoint, "reply")))
    own = {status: {"description": text} for status, text in endpoint.statuses.items()}
    errors = {
        status: {"$ref": f"#/components/responses/{name}"}
        for status, (name, _) in ERRORS.items()
        if not is_open
    }
    statuses = {"200": {"description": "done", "content": reply}, **errors, **own}
    described = {
        "operationId": re.sub(r"\W+", "_", f"{method.lower()}{endpoint.path}").strip("_"),
        "summary": endpoint.summary,
        "parameters": [*in_path, *in_query],
        "responses": {status: statuses[status] for status in sorted(statuses)},
        "security": [{}] if is_open else [{}, {"token": []}],
    }
    if endpoint.body is WantedOperation:
        described["requestBody"] = {"required": True, "content": _content(None, _any_of(schemas))}
    elif endpoint.body is not None:
        content = _content(endpoint.body, schemas.get((endpoint, "body")))
        described["requestBody"] = {"content": content}
    return described


def _content(kind: Any, schema: Any) -> dict[str, Any]:
    return {kind: {}} if isinstance(kind, str) else {JSON: {"schema": schema}}


def _any_of(schemas: dict[object, Any]) -> dict[str, Any]:
    """The schema of a request for an operation, one alternative for each."""
    return {"oneOf": [_operation(name, schemas[name]) for name in operations.OPERATIONS]}


def _operation(name: str, arguments: Any) -> dict[str, Any]:
    needs = any(each.required for each in msgspec.structs.fields(operations.arguments_of(name)))
    text = inspect.getdoc(operations.OPERATIONS[name]) or ""
    return {
        "type": "object",
        "description": text.partition("\n")[0],
        "properties": {"operation": {"const": name}, "arguments": arguments},
        "required": ["operation", "arguments"] if needs else ["operation"],
        "additionalProperties": False,
    }
