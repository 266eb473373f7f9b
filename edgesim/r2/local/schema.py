"""The tables of a local store, and their migration from an earlier version."""

from __future__ import annotations

from edgesim.database import Database
from edgesim.errors import RunError
from edgesim.r2.local import indexed_uploads, object_table

SCHEMA = object_table.SCHEMA + indexed_uploads.SCHEMA
VERSION = 2
_TO_VERSION_2 = (
    "ALTER TABLE objects ADD COLUMN sums BLOB",
    "ALTER TABLE parts ADD COLUMN sums BLOB",
    "INSERT INTO usage SELECT bucket, COUNT(*), SUM(size) FROM objects GROUP BY bucket",
    "DROP INDEX IF EXISTS objects_by_size",
)


def prepare(database: Database) -> None:
    """Migrate the tables to this version; RunError if a later version wrote them."""
    [(version,)] = database.run("PRAGMA user_version")
    if version > VERSION:
        raise RunError(
            f"{database.name} was written by a later edgesim (schema {version}, not {VERSION})",
            "use that one, or another state directory",
        )
    if version == VERSION:
        return
    with database.transaction():
        for statement in _TO_VERSION_2:
            database.run(statement)
        database.run(f"PRAGMA user_version = {VERSION}")
