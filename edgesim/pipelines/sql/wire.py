"""Protocol between the platform and the SQL process.

The process's first frame is SqlReady.  A request is a Describe, which is answered by Columns, a
Preview, which is answered by Previewed, or a Transform, which is answered by SqlReady.  Each Rows
after it is answered by RowsDone, and an EndOfRows by Transformed once the file is complete.
SqlFailed replaces any answer and ends the request.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from edgesim.config.pipelines import Field
from edgesim.pipelines.process_frames import FrameCodec

SQL_ERROR, TIME, MEMORY, CRASH = "sql_error", "time_limit", "memory_limit", "engine_crash"
"""Reasons for which a row is dropped."""


class Query(msgspec.Struct, array_like=True):
    """A statement's SELECT, and the stream that it reads; ``now`` is the time of ``now()``."""

    sql: str
    stream: str
    fields: list[Field]
    now: str


class FileFormat(msgspec.Struct, array_like=True):
    """The form of a result; ``row_group_bytes`` is for Parquet.

    A ``table`` is Parquet for an Iceberg table: ``schema`` is the serialised Arrow schema of its
    files, ``ingest_column`` the column that has ``ingest_us`` (Unix microseconds) in every row.
    """

    format: Literal["json", "parquet", "table"]
    compression: str
    row_group_bytes: int
    schema: bytes = b""
    ingest_column: str = ""
    ingest_us: int = 0


class Describe(msgspec.Struct, tag=True, array_like=True):
    """Request: the columns of a query's result, if files can have them."""

    query: Query
    format: FileFormat
    seconds: float


class SqlReady(msgspec.Struct, tag=True, array_like=True):
    """The process waits for a request, or for the rows of one."""


class Transform(msgspec.Struct, tag=True, array_like=True):
    """Request: run a query over the rows that follow, and write its result to a file."""

    query: Query
    format: FileFormat
    path: str
    seconds: float


class Rows(msgspec.Struct, tag=True, array_like=True):
    """A file of rows, newline-delimited JSON, and the CPU seconds that they may take."""

    path: str
    seconds: float


class RowDrop(msgspec.Struct, array_like=True):
    """A row that is not in the file, by its index in its frame, with the engine's error."""

    row: int
    reason: str
    message: str


class RowsDone(msgspec.Struct, tag=True, array_like=True):
    """Answer to Rows: those that failed one by one."""

    drops: list[RowDrop]


class EndOfRows(msgspec.Struct, tag=True, array_like=True):
    """The rows are complete."""


class ResultColumn(msgspec.Struct, array_like=True):
    """A column of a result, with its Arrow type."""

    name: str
    type: str
    nullable: bool


class Columns(msgspec.Struct, tag=True, array_like=True):
    """Answer to Describe; ``schema`` is the serialised Arrow schema."""

    columns: list[ResultColumn]
    schema: bytes = b""


class Transformed(msgspec.Struct, tag=True, array_like=True):
    """Answer to Transform: rows of the file, and their bytes before compression."""

    rows: int
    bytes: int


class Preview(msgspec.Struct, tag=True, array_like=True):
    """Request: the first rows of a Parquet file, up to a number of rows and bytes of JSON."""

    path: str
    rows: int
    bytes: int
    seconds: float


class Previewed(msgspec.Struct, tag=True, array_like=True):
    """Answer to Preview: ``lines`` are the first rows, newline-delimited JSON, of ``rows``."""

    columns: list[ResultColumn]
    lines: bytes
    rows: int


class SqlFailed(msgspec.Struct, tag=True, array_like=True):
    """The engine's error."""

    message: str


SqlFrame = (
    SqlReady
    | Describe
    | Transform
    | Rows
    | RowsDone
    | EndOfRows
    | Columns
    | Transformed
    | Preview
    | Previewed
    | SqlFailed
)
FRAMES: FrameCodec[SqlFrame] = FrameCodec(SqlFrame)
