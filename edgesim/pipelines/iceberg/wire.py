"""Protocol between the platform and the Iceberg process.

Every request has one answer; TableRefused replaces it if the request cannot be done.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from edgesim.pipelines.process_frames import FrameCodec


class NewTable(msgspec.Struct, tag=True, array_like=True):
    """Request: the metadata of a new table with these columns, an Arrow schema.

    ``ingest_column`` is added to them, and the table is partitioned by its day.
    """

    columns: bytes
    ingest_column: str
    properties: dict[str, str]
    location: str
    uuid: str
    now_ms: int


class ClientTable(msgspec.Struct, tag=True, array_like=True):
    """Request: the metadata of a new table as a client of the catalog asks for it.

    ``request`` is the body of the REST protocol's create request.
    """

    request: bytes
    location: str
    uuid: str
    now_ms: int


class Commit(msgspec.Struct, tag=True, array_like=True):
    """Request: apply a client's commit; ``base`` is empty for a table that does not exist yet.

    ``request`` is the body of the REST protocol's commit request.
    """

    base: bytes
    base_location: str
    request: bytes
    now_ms: int


class AppendFile(msgspec.Struct, tag=True, array_like=True):
    """Request: a new snapshot of a table with one more data file.

    ``footer`` is the end of the Parquet file, and ``size`` the number of its bytes.

    ``manifest_list`` is the content of the current snapshot's; empty if there is no snapshot.
    ``summary`` is added to the snapshot's.
    """

    base: bytes
    base_location: str
    manifest_list: bytes
    footer: bytes
    size: int
    data_location: str
    manifest_location: str
    list_location: str
    snapshot_id: int
    summary: dict[str, str]
    now_ms: int


class DescribeTable(msgspec.Struct, tag=True, array_like=True):
    """Request: the columns of a table, which must be those of a query and the ingest column.

    ``columns`` is the query's Arrow schema.
    """

    base: bytes
    columns: bytes
    ingest_column: str


class Ready(msgspec.Struct, tag=True, array_like=True):
    """The process's first frame: it is ready."""


class Metadata(msgspec.Struct, tag=True, array_like=True):
    """Answer: the metadata of a table, as JSON."""

    content: bytes


class Appended(msgspec.Struct, tag=True, array_like=True):
    """Answer to AppendFile: the contents of the files of the new snapshot, and the metadata."""

    manifest: bytes
    manifest_list: bytes
    content: bytes


class TableColumns(msgspec.Struct, tag=True, array_like=True):
    """Answer to DescribeTable: the serialised Arrow schema; it carries the ids of the fields."""

    schema: bytes


class TableRefused(msgspec.Struct, tag=True, array_like=True):
    """Answer: the request cannot be done; ``kind`` says why."""

    kind: Literal["bad", "conflict", "columns"]
    message: str


IcebergFrame = (
    NewTable
    | ClientTable
    | Commit
    | AppendFile
    | DescribeTable
    | Ready
    | Metadata
    | Appended
    | TableColumns
    | TableRefused
)
FRAMES: FrameCodec[IcebergFrame] = FrameCodec(IcebergFrame)
