"""``[sinks.NAME]`` of edgesim.toml: the files that pipelines write, and when.

Keys, defaults and limits are those of ``wrangler basin pipelines sinks create``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import msgspec

from edgesim.config.buckets import check_bucket
from edgesim.errors import ConfigError

ROLL_SECONDS_MIN = 10
CATALOG_TYPES = {"r2-data-catalog", "basin-catalog"}
MB = 1_000_000
_SPECIFIERS = "YCyqmbBhdejaAwuUWGgVDFHkIlPpMSRTXsnt%"
_SPECIFIER = re.compile(r"%(.?)", re.DOTALL)
_COMPRESSIONS = {
    "json": ("uncompressed", "gzip"),
    "parquet": ("zstd", "snappy", "gzip", "lz4", "uncompressed"),
}
"""Compressions by format; the first one is the default."""


class SinkConfig(msgspec.Struct, forbid_unknown_fields=True):
    """A sink; a file ends after ``roll_interval`` seconds or ``roll_size`` MB of records.

    ``target_row_group_size`` (MB) is for Parquet.  ``partitioning`` is a strftime pattern for the
    folder of a file, in UTC.
    """

    bucket: str
    type: Literal["r2"] = "r2"
    format: Literal["json", "parquet"] = "parquet"
    compression: str = ""
    roll_interval: float = 300
    roll_size: float | None = None
    target_row_group_size: int = 1024
    path: str = ""
    partitioning: str = "year=%Y/month=%m/day=%d"

    @property
    def roll_bytes(self) -> float:
        """Bytes of records that end a file."""
        return float("inf") if self.roll_size is None else self.roll_size * MB


def refuse_catalogs(file: Path, tables: Any) -> None:
    """ConfigError for a sink of Iceberg tables, which edgesim does not have."""
    for name, table in tables.items() if isinstance(tables, dict) else ():
        if isinstance(table, dict) and table.get("type") in CATALOG_TYPES:
            problem = (
                'edgesim has no Iceberg tables; write type = "r2" with format = "parquet", and '
                "test the catalog on Cloudflare"
            )
            raise ConfigError(file, f"sinks.{name}.type", problem)


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
        if sink.roll_interval < ROLL_SECONDS_MIN:
            problem = f"{sink.roll_interval:g} is below the platform's {ROLL_SECONDS_MIN} seconds"
            raise ConfigError(file, f"{key}.roll_interval", problem)
        if sink.roll_size is not None and sink.roll_size <= 0:
            raise ConfigError(file, f"{key}.roll_size", "is a size in MB, above 0")
        if sink.target_row_group_size < 1:
            raise ConfigError(file, f"{key}.target_row_group_size", "is a size in MB, above 0")
        _check_partitioning(file, f"{key}.partitioning", sink.partitioning)


def _check_partitioning(file: Path, key: str, pattern: str) -> None:
    for specifier in _SPECIFIER.findall(pattern):
        if specifier not in _SPECIFIERS or not specifier:
            known = " ".join(f"%{each}" for each in _SPECIFIERS)
            raise ConfigError(file, key, f"%{specifier} is no part of a time; known: {known}")
