"""``[sinks.NAME]`` of edgesim.toml: the files that pipelines write, and when.

Keys, defaults and limits are those of ``wrangler basin pipelines sinks create``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import msgspec

from edgesim.config.buckets import check_bucket
from edgesim.errors import ConfigError

ROLL_SECONDS_MIN = 10
CATALOG_ROLL_SECONDS_MIN = 60
PARTITIONING = "year=%Y/month=%m/day=%d"
CATALOG_TYPES = {"r2-data-catalog", "basin-catalog"}
MB = 1_000_000
_SPECIFIERS = "YCyqmbBhdejaAwuUWGgVDFHkIlPpMSRTXsnt%"
_SPECIFIER = re.compile(r"%(.?)", re.DOTALL)
_COMPRESSIONS = {
    "json": ("uncompressed", "gzip"),
    "parquet": ("zstd", "snappy", "gzip", "lz4", "uncompressed"),
}
"""Compressions by format; the first one is the default."""
_TABLE = re.compile(r"[A-Za-z0-9_-]{1,255}")
_NAMESPACE = re.compile(r"(?=.{1,255}$)[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_EXAMPLES = {"namespace": "default", "table": "clicks"}


class SinkConfig(msgspec.Struct, forbid_unknown_fields=True):
    """A sink; a file ends after ``roll_interval`` seconds or ``roll_size`` MB of records.

    ``target_row_group_size`` (MB) is for Parquet.  ``partitioning`` is a strftime pattern for the
    folder of a file, in UTC.  A sink of the type ``r2-data-catalog`` (``basin-catalog`` is its
    other name) writes an Iceberg table: ``namespace``, with dots between its parts, and ``table``.
    """

    bucket: str
    type: Literal["r2", "r2-data-catalog", "basin-catalog"] = "r2"
    format: Literal["json", "parquet"] = "parquet"
    compression: str = ""
    roll_interval: float = 300
    roll_size: float | None = None
    target_row_group_size: int = 1024
    path: str = ""
    partitioning: str = PARTITIONING
    namespace: str = ""
    table: str = ""

    @property
    def is_catalog(self) -> bool:
        """True for a sink that writes an Iceberg table."""
        return self.type in CATALOG_TYPES

    @property
    def roll_bytes(self) -> float:
        """Bytes of records that end a file."""
        return float("inf") if self.roll_size is None else self.roll_size * MB


def check_sinks(file: Path, sinks: dict[str, SinkConfig]) -> None:
    """Check the values beyond their types, and set defaults; ConfigError names the key."""
    for name, sink in sinks.items():
        key = f"sinks.{name}"
        check_bucket(file, f"{key}.bucket", sink.bucket)
        known = _COMPRESSIONS[sink.format]
        sink.compression = sink.compression or known[0]
        if sink.compression not in known:
            problem = f"{sink.format} files have no {sink.compression!r}; known: {', '.join(known)}"
            raise ConfigError(file, f"{key}.compression", problem)
        least = CATALOG_ROLL_SECONDS_MIN if sink.is_catalog else ROLL_SECONDS_MIN
        if sink.roll_interval < least:
            problem = f"{sink.roll_interval:g} is below the platform's {least} seconds"
            raise ConfigError(file, f"{key}.roll_interval", problem)
        if sink.roll_size is not None and sink.roll_size <= 0:
            raise ConfigError(file, f"{key}.roll_size", "is a size in MB, above 0")
        if sink.target_row_group_size < 1:
            raise ConfigError(file, f"{key}.target_row_group_size", "is a size in MB, above 0")
        _check_partitioning(file, f"{key}.partitioning", sink.partitioning)
        _check_table(file, key, sink)
    _check_tables_differ(file, sinks)


def _check_table(file: Path, key: str, sink: SinkConfig) -> None:
    if not sink.is_catalog:
        for name in ("namespace", "table"):
            if getattr(sink, name):
                problem = 'is for tables; add type = "r2-data-catalog", or remove it'
                raise ConfigError(file, f"{key}.{name}", problem)
        return
    if sink.format != "parquet":
        raise ConfigError(file, f"{key}.format", "a table consists of Parquet files")
    for name, default in (("path", ""), ("partitioning", PARTITIONING)):
        if getattr(sink, name) != default:
            raise ConfigError(file, f"{key}.{name}", "the catalog decides on a table's keys")
    for name, pattern in (("namespace", _NAMESPACE), ("table", _TABLE)):
        value = getattr(sink, name)
        if not value:
            problem = f'is missing; a table has a {name}, for example "{_EXAMPLES[name]}"'
            raise ConfigError(file, f"{key}.{name}", problem)
        if not pattern.fullmatch(value):
            problem = f"{value!r} is no name: letters, digits, - and _, at most 255"
            raise ConfigError(file, f"{key}.{name}", problem)


def _check_tables_differ(file: Path, sinks: dict[str, SinkConfig]) -> None:
    seen: dict[tuple[str, str, str], str] = {}
    for name, sink in sinks.items():
        if not sink.is_catalog:
            continue
        other = seen.setdefault((sink.bucket, sink.namespace, sink.table), name)
        if other != name:
            raise ConfigError(file, f"sinks.{name}.table", f"is the table of sink {other!r} too")


def _check_partitioning(file: Path, key: str, pattern: str) -> None:
    for specifier in _SPECIFIER.findall(pattern):
        if specifier not in _SPECIFIERS or not specifier:
            known = " ".join(f"%{each}" for each in _SPECIFIERS)
            raise ConfigError(file, key, f"%{specifier} is no part of a time; known: {known}")
