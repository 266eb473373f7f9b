"""Schema files of streams, in Cloudflare's format: ``{"fields": [{"name", "type", "required"}]}``.

The same file is passed to ``wrangler basin pipelines streams create --schema-file``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec

from edgesim.config.files import convert, read_table
from edgesim.config.pipelines import Field, FieldType, check_fields
from edgesim.errors import ConfigError

_ONLY_LEGACY = {"uint32", "uint64", "decimal128"}
"""Types of ``[[pipelines.NAME.schema]]`` that a schema file does not know."""
TYPES = sorted(set(get_args(FieldType)) - _ONLY_LEGACY)


class SchemaFile(msgspec.Struct, forbid_unknown_fields=True):
    """The content of a schema file."""

    fields: list[Field]


def read_schema(file: Path) -> list[Field]:
    """The fields of a schema file; ConfigError names the key and the fix."""
    table = read_table(file)
    for key, field in _declared(table, "fields"):
        kind = field.get("type")
        if isinstance(kind, str) and kind not in TYPES:
            near = difflib.get_close_matches(kind, TYPES, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"types: {', '.join(TYPES)}"
            raise ConfigError(file, f"{key}.type", f"there is no type {kind!r}; {hint}")
    fields: list[Field] = convert(file, table, SchemaFile).fields
    if not fields:
        problem = "is empty; name a field, or leave the schema out for an unstructured stream"
        raise ConfigError(file, "fields", problem)
    check_fields(file, "fields", fields)
    return fields


def _declared(table: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field at every depth, with its key, as far as the tables have the right form."""
    fields = table.get(key.rpartition(".")[2]) if isinstance(table, dict) else None
    for index, field in enumerate(fields if isinstance(fields, list) else []):
        yield from _nested(field, f"{key}[{index}]")


def _nested(field: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(field, dict):
        yield key, field
        yield from _nested(field.get("items"), f"{key}.items")
        yield from _declared(field, f"{key}.fields")


def column_names(fields: Sequence[Field]) -> list[str]:
    """Names of a stream's columns; an unstructured stream has one, ``value``."""
    return [field.name for field in fields] or ["value"]
