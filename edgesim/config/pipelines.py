"""``[pipelines.NAME]`` of edgesim.toml: bucket, roll limits and schema of a Pipeline."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edgesim.config.buckets import check_bucket
from edgesim.errors import ConfigError

_STREAM_ID = re.compile(r"[0-9a-f]{32}")
_NAME = re.compile(r"[A-Za-z0-9_]{1,128}")

FieldType = Literal[
    "string",
    "bool",
    "int32",
    "int64",
    "uint32",
    "uint64",
    "float32",
    "float64",
    "decimal128",
    "timestamp",
    "json",
    "binary",
    "bytes",
    "list",
    "struct",
]


TimeUnit = Literal["second", "millisecond", "microsecond", "nanosecond"]


class Field(msgspec.Struct, forbid_unknown_fields=True):
    """One field of a structured stream; ``items`` is for lists, ``fields`` for structs.

    ``unit`` is for timestamps that are sent as numbers.
    """

    type: FieldType
    name: str = ""
    required: bool = False
    items: Field | None = None
    fields: list[Field] = []
    unit: TimeUnit | None = None


class PipelineConfig(msgspec.Struct, forbid_unknown_fields=True):
    """A Pipeline: its bucket, and its roll limits (the first one reached closes an object).

    ``layout`` is the form of object keys: ``legacy`` is
    ``event_date=YYYY-MM-DD/hr=HH/<ULID>``, ``current`` is ``year=YYYY/month=MM/day=DD/<UUID>``.
    ``id`` is the stream's id on Cloudflare; deployed wrangler files refer to a stream by it.
    """

    bucket: str
    id: str | None = None
    prefix: str = ""
    max_seconds: Annotated[float, msgspec.Meta(gt=0)] = 90
    max_bytes: Annotated[int, msgspec.Meta(ge=1)] = 100_000_000
    max_rows: Annotated[int, msgspec.Meta(ge=1)] = 10_000_000
    compression: Literal["gzip", "none"] = "gzip"
    layout: Literal["legacy", "current"] = "legacy"
    schema: list[Field] = []


def is_stream_id(text: str) -> bool:
    """True if the text is a stream id (32 hexadecimal digits) rather than a name."""
    return _STREAM_ID.fullmatch(text) is not None


def check_pipelines(file: Path, pipelines: dict[str, PipelineConfig]) -> None:
    """Check names, ids, buckets and schemas beyond their types; ConfigError names the key."""
    for name, pipeline in pipelines.items():
        if not _NAME.fullmatch(name):
            problem = "a pipeline's name has letters, digits and underscores only"
            raise ConfigError(file, f"pipelines.{name}", problem)
        if pipeline.id is not None and not is_stream_id(pipeline.id):
            problem = f"{pipeline.id!r} is no id of a stream: 32 hexadecimal digits"
            raise ConfigError(file, f"pipelines.{name}.id", problem)
        if sum(pipeline.id == each.id for each in pipelines.values()) > 1 and pipeline.id:
            problem = "is another pipeline's too; each stream has an id of its own"
            raise ConfigError(file, f"pipelines.{name}.id", problem)
        check_bucket(file, f"pipelines.{name}.bucket", pipeline.bucket)
        check_fields(file, f"pipelines.{name}.schema", pipeline.schema)


def check_fields(file: Path, key: str, fields: list[Field]) -> None:
    """Check names and nesting; ConfigError names the key."""
    names = [field.name for field in fields]
    for index, field in enumerate(fields):
        if not field.name:
            raise ConfigError(file, f"{key}[{index}]", "needs a `name`")
        if names.count(field.name) > 1:
            raise ConfigError(file, f"{key}[{index}].name", f"{field.name!r} stands there twice")
        _check_inside(file, f"{key}[{index}]", field)


def _check_inside(file: Path, key: str, field: Field) -> None:
    if (field.type == "list") != (field.items is not None):
        raise ConfigError(file, f"{key}.items", "is for a field of type list, and needed there")
    if (field.type == "struct") != bool(field.fields):
        raise ConfigError(file, f"{key}.fields", "is for a field of type struct, and needed there")
    if field.items is not None:
        _check_inside(file, f"{key}.items", field.items)
    if field.unit is not None and field.type != "timestamp":
        raise ConfigError(file, f"{key}.unit", "is for a field of type timestamp only")
    check_fields(file, f"{key}.fields", field.fields)
