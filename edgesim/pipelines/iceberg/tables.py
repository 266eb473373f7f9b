"""Metadata of Iceberg tables, by pyiceberg; in the Iceberg process.

Tables have format version 2, the platform's default.  Its times are microseconds: a column of
nanoseconds is cut to them, so pyiceberg's warnings about that are off.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Literal
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.avro.codecs import AvroCompressionCodec
from pyiceberg.catalog.rest import CreateTableRequest
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.io import InputFile, OutputFile
from pyiceberg.io.pyarrow import (
    UnsupportedPyArrowTypeException,
    _pyarrow_to_schema_without_ids,
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
    schema_to_pyarrow,
)
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    read_manifest_list,
    write_manifest,
    write_manifest_list,
)
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import CommitTableRequest
from pyiceberg.table.metadata import (
    TableMetadata,
    TableMetadataUtil,
    TableMetadataV1,
    TableMetadataV2,
    new_table_metadata,
)
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import (
    Operation,
    Snapshot,
    SnapshotSummaryCollector,
    Summary,
    update_snapshot_summaries,
)
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    SetSnapshotRefUpdate,
    update_table_metadata,
)
from pyiceberg.transforms import DayTransform
from pyiceberg.types import NestedField, TimestampType

from edgesim.pipelines.iceberg import wire

Kind = Literal["bad", "conflict", "columns"]
_AVRO: AvroCompressionCodec = "deflate"
_PARTITION_FIELD = 1000
"""Iceberg's first id of a partition field."""


logging.getLogger("pyiceberg.io.pyarrow").setLevel(logging.ERROR)


class RefusedTableError(ValueError):
    """A request that cannot be done; ``kind`` is that of ``wire.TableRefused``."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class _Output(OutputFile):
    """A file in memory."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self._stream = _Kept()

    @property
    def content(self) -> bytes:
        return self._stream.content

    def create(self, overwrite: bool = False) -> _Kept:
        return self._stream

    def __len__(self) -> int:
        return len(self.content)

    def exists(self) -> bool:
        return False

    def to_input_file(self) -> _Input:
        return _Input(self.location, self.content)


class _Kept(io.BytesIO):
    """Bytes that can still be read when the stream is closed."""

    content = b""

    def close(self) -> None:
        self.content = self.getvalue()
        super().close()


class _Input(InputFile):
    """A file in memory, to be read."""

    def __init__(self, location: str, content: bytes) -> None:
        super().__init__(location)
        self._content = content

    def open(self, seekable: bool = True) -> io.BytesIO:
        return io.BytesIO(self._content)

    def __len__(self) -> int:
        return len(self._content)

    def exists(self) -> bool:
        return True


def new_table(request: wire.NewTable) -> bytes:
    """The metadata of a new table, partitioned by the day of its ingest column."""
    schema = _with_ingest(_schema_of(request.columns, request.ingest_column), request.ingest_column)
    column = schema.find_field(request.ingest_column)
    day = PartitionField(
        column.field_id, _PARTITION_FIELD, DayTransform(), f"{request.ingest_column}_day"
    )
    metadata = new_table_metadata(
        schema,
        PartitionSpec(day),
        UNSORTED_SORT_ORDER,
        request.location,
        dict(request.properties),
        UUID(request.uuid),
    )
    return _encoded(metadata, request.now_ms)


def client_table(request: wire.ClientTable) -> bytes:
    """The metadata of a table that a client creates."""
    asked = CreateTableRequest.model_validate(
        {"location": None, "partition-spec": None, "write-order": None}
        | json.loads(request.request)
    )
    metadata = new_table_metadata(
        asked.table_schema,
        asked.partition_spec or UNPARTITIONED_PARTITION_SPEC,
        asked.write_order or UNSORTED_SORT_ORDER,
        asked.location or request.location,
        dict(asked.properties),
        UUID(request.uuid),
    )
    return _encoded(metadata, request.now_ms)


def commit(request: wire.Commit) -> bytes:
    """The metadata after a client's commit; a requirement that fails is a conflict."""
    asked = CommitTableRequest.model_validate(
        json.loads(request.request) | {"identifier": {"namespace": ["_"], "name": "_"}}
    )
    base = TableMetadataUtil.parse_raw(request.base.decode()) if request.base else None
    for requirement in asked.requirements:
        try:
            requirement.validate(base)
        except CommitFailedException as error:
            raise RefusedTableError("conflict", str(error)) from error
    start = base or _nothing()
    changed = update_table_metadata(
        start,
        asked.updates,
        enforce_validation=base is None,
        metadata_location=request.base_location or None,
    )
    return _encoded(changed, max(request.now_ms, changed.last_updated_ms if base else 0))


def describe(request: wire.DescribeTable) -> bytes:
    """The Arrow schema of a table's files; refused unless the table has the query's columns.

    It may have others that are optional: clients can add columns.
    """
    table = TableMetadataUtil.parse_raw(request.base.decode()).schema()
    wanted = _with_ingest(_schema_of(request.columns, request.ingest_column), request.ingest_column)
    found, needed = _shown(table), _shown(wanted)
    lacking = [each for name, each in needed.items() if found.get(name) != each]
    optional = {each.name for each in table.fields if each.optional}
    extra = [each for name, each in found.items() if name not in needed.keys() | optional]
    if lacking or extra:
        parts = [f"lacks {', '.join(lacking)}"] if lacking else []
        parts += [f"needs {', '.join(extra)}"] if extra else []
        raise RefusedTableError("columns", " and ".join(parts))
    schema: bytes = schema_to_pyarrow(table).serialize().to_pybytes()
    return schema


def append_file(request: wire.AppendFile) -> wire.Appended:
    """The files and the metadata of a snapshot with one more data file."""
    base = TableMetadataUtil.parse_raw(request.base.decode())
    if not isinstance(base, TableMetadataV2):
        problem = f"the table has format version {base.format_version}; a sink writes version 2"
        raise RefusedTableError("columns", problem)
    data = _data_file(base, request)
    manifest, entry = _manifest(base, data, request)
    manifest_list = _manifest_list(base, entry, request)
    updates = _snapshot_updates(base, data, request)
    changed = update_table_metadata(base, updates, metadata_location=request.base_location)
    content = _encoded(changed, changed.last_updated_ms)
    return wire.Appended(manifest, manifest_list, content)


def _schema_of(columns: bytes, ingest_column: str) -> Schema:
    """The columns of a query; refused if Iceberg cannot have them."""
    arrow = pa.ipc.read_schema(pa.py_buffer(columns))
    seen: set[str] = set()
    for field in arrow:
        if field.name in seen or field.name == ingest_column:
            reason = "the sink adds it" if field.name == ingest_column else "it is there twice"
            problem = f"column {field.name!r}: {reason}; give it another name by AS"
            raise RefusedTableError("columns", problem)
        seen.add(field.name)
        try:
            _pyarrow_to_schema_without_ids(pa.schema([field]), downcast_ns_timestamp_to_us=True)
        except (TypeError, ValueError, UnsupportedPyArrowTypeException) as error:
            problem = f"column {field.name!r}: Iceberg has no {field.type}; cast it to another type"
            raise RefusedTableError("columns", problem) from error
    return _pyarrow_to_schema_without_ids(arrow, downcast_ns_timestamp_to_us=True)


def _with_ingest(schema: Schema, ingest_column: str) -> Schema:
    """The columns and the ingest column, with ids."""
    numbered = [
        NestedField(index, each.name, each.field_type, required=each.required)
        for index, each in enumerate(schema.fields, 1)
    ]
    ingest = NestedField(len(numbered) + 1, ingest_column, TimestampType(), required=True)
    return Schema(*numbered, ingest)


def _shown(schema: Schema) -> dict[str, str]:
    """The columns as text, without ids."""
    return {
        each.name: f"{each.name} {each.type}{'' if each.nullable else ' not null'}"
        for each in schema_to_pyarrow(schema, include_field_ids=False)
    }


def _nothing() -> TableMetadata:
    """The metadata that the commit of a new table begins with."""
    return TableMetadataV1.model_validate(
        {"location": "", "last-column-id": -1, "schema": Schema()}
    )


def _encoded(metadata: TableMetadata, now_ms: int) -> bytes:
    dated = metadata.model_copy(update={"last_updated_ms": now_ms})
    return dated.model_dump_json(exclude_none=True, by_alias=True).encode()


def _data_file(base: TableMetadata, request: wire.AppendFile) -> DataFile:
    schema, spec = base.schema(), base.spec()
    statistics = data_file_statistics_from_parquet_metadata(
        pq.read_metadata(io.BytesIO(request.footer)),
        compute_statistics_plan(schema, base.properties),
        parquet_path_to_id_mapping(schema),
    )
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=request.data_location,
        file_format=FileFormat.PARQUET,
        partition=statistics.partition(spec, schema),
        file_size_in_bytes=request.size,
        sort_order_id=None,
        spec_id=base.default_spec_id,
        equality_ids=None,
        key_metadata=None,
        **statistics.to_serialized_dict(),
    )


def _manifest(
    base: TableMetadata, data: DataFile, request: wire.AppendFile
) -> tuple[bytes, ManifestFile]:
    output = _Output(request.manifest_location)
    with write_manifest(
        2, base.spec(), base.schema(), output, request.snapshot_id, _AVRO
    ) as writer:
        writer.add(
            ManifestEntry.from_args(
                status=ManifestEntryStatus.ADDED,
                snapshot_id=request.snapshot_id,
                sequence_number=None,
                file_sequence_number=None,
                data_file=data,
            )
        )
    return output.content, writer.to_manifest_file()


def _manifest_list(base: TableMetadataV2, entry: ManifestFile, request: wire.AppendFile) -> bytes:
    output = _Output(request.list_location)
    parent = base.current_snapshot()
    with write_manifest_list(
        2,
        output,
        request.snapshot_id,
        parent.snapshot_id if parent else None,
        base.last_sequence_number + 1,
        _AVRO,
    ) as writer:
        writer.add_manifests([entry, *_earlier(request.manifest_list)])
    return output.content


def _earlier(manifest_list: bytes) -> Iterator[ManifestFile]:
    if manifest_list:
        yield from read_manifest_list(_Input("manifest-list", manifest_list))


def _snapshot_updates(
    base: TableMetadataV2, data: DataFile, request: wire.AppendFile
) -> tuple[AddSnapshotUpdate | SetSnapshotRefUpdate, ...]:
    parent = base.current_snapshot()
    collector = SnapshotSummaryCollector()
    collector.add_file(data, base.schema(), base.spec())
    summary = update_snapshot_summaries(
        Summary(operation=Operation.APPEND, **collector.build(), **request.summary),
        parent.summary if parent else None,
    )
    snapshot = Snapshot.model_validate(
        {
            "snapshot-id": request.snapshot_id,
            "parent-snapshot-id": parent.snapshot_id if parent else None,
            "sequence-number": base.last_sequence_number + 1,
            # The clock may have been set back; readers want times that rise.
            "timestamp-ms": max(request.now_ms, base.last_updated_ms),
            "manifest-list": request.list_location,
            "summary": summary,
            "schema-id": base.current_schema_id,
        }
    )
    main = SetSnapshotRefUpdate.model_validate(
        {"snapshot-id": request.snapshot_id, "ref-name": MAIN_BRANCH, "type": "branch"}
    )
    return AddSnapshotUpdate(snapshot=snapshot), main
