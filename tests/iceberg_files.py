"""Rows of an Iceberg table by its manifests, from the bucket itself."""

import io
from typing import Any

import pyarrow.parquet
from pyiceberg.io import FileIO, InputFile, OutputFile
from pyiceberg.table.metadata import TableMetadataUtil

from edgesim.pipelines.iceberg.catalog import Catalog
from edgesim.r2.bucket import Bucket
from tests.r2_world import text


class LoadedFile(InputFile):
    """A file in memory."""

    def __init__(self, location: str, content: bytes) -> None:
        super().__init__(location)
        self.content = content

    def open(self, seekable: bool = True) -> io.BytesIO:
        return io.BytesIO(self.content)

    def exists(self) -> bool:
        return True

    def __len__(self) -> int:
        return len(self.content)


class LoadedFiles(FileIO):
    """The content of a bucket, in memory."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        super().__init__()
        self.contents = contents

    def new_input(self, location: str) -> LoadedFile:
        return LoadedFile(location, self.contents[location])

    def new_output(self, location: str) -> OutputFile:
        raise NotImplementedError

    def delete(self, location: Any) -> None:
        raise NotImplementedError


async def parquet_rows(bucket: Bucket, key: str) -> list[dict[str, Any]]:
    """The rows of a Parquet file."""
    content = io.BytesIO(await text(await bucket.get(key)))
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(content).to_pylist()
    return rows


async def table_rows(catalog: Catalog, namespace: str, table: str) -> list[dict[str, Any]]:
    """The rows of the table's current snapshot; the counts of its metadata must be right."""
    loaded = await catalog.load(namespace, table)
    metadata = TableMetadataUtil.parse_raw(loaded.content.decode())
    bucket = catalog.bucket
    listed = await bucket.list(prefix=f"{catalog.folder}/")
    assert not listed.truncated
    files = LoadedFiles(
        {
            f"s3://{bucket.name}/{each.key}": await text(await bucket.get(each.key))
            for each in listed.objects
            if each.key.endswith(".avro")
        }
    )
    snapshot = metadata.current_snapshot()
    found: list[dict[str, Any]] = []
    for manifest in snapshot.manifests(files) if snapshot else []:
        for entry in manifest.fetch_manifest_entry(files):
            rows = await parquet_rows(bucket, catalog.key_of(entry.data_file.file_path))
            assert len(rows) == entry.data_file.record_count
            found += rows
    summary = snapshot.summary if snapshot else None
    assert (summary["total-records"] if summary else "0") == str(len(found))
    return found
