"""Detection of writes that the embedded engine lost without an error.

chdb 26.9 counts a failed ``write`` (disk full, quota, file size limit, EIO) and continues: the
insert succeeds, but its part is truncated and later SELECTs of the table fail, or its deduplication
token is lost when the engine exits.  The counter is compared around each statement that changes
data; if it increased, the statement fails and its part is dropped.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from edgesim.clickhouse.chdb import tokens as chdb_tokens
from edgesim.clickhouse.exceptions import CANNOT_WRITE_TO_FILE_DESCRIPTOR
from edgesim.clickhouse.statements import named, quoted
from edgesim.errors import ClickHouseError

_MARK = """
    SELECT sum(value), toUnixTimestamp(now()) FROM system.events
    WHERE event = 'WriteBufferFromFileDescriptorWriteFailed'"""
_NEW_PARTS = """
    SELECT database, table, name, level, path FROM system.parts
    WHERE active AND modification_time >= toDateTime({})"""


class WriteMark(NamedTuple):
    """Failed writes since the engine was started, and the time in Unix seconds."""

    failed: int
    seconds: int


class Writes:
    """Checks for failed writes, through a ``session`` that has no client's settings."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._repair = Lock()

    def mark(self) -> WriteMark:
        """Return the current counter and time."""
        return WriteMark(*map(int, self._session.query(_MARK, "TSV").bytes().split()))

    def check(self, before: WriteMark) -> None:
        """Raise ClickHouseError if a write has failed since the mark.

        Drops the damaged parts inserted since then, with their deduplication tokens, so that the
        insert can be retried.
        """
        if self.mark().failed == before.failed:
            return
        with self._repair:
            self._drop_damaged(before.seconds - 1)
        raise ClickHouseError(
            CANNOT_WRITE_TO_FILE_DESCRIPTOR,
            "Cannot write to the database's files: the disk is full, over a quota, or broken. "
            "(CANNOT_WRITE_TO_FILE_DESCRIPTOR)",
        )

    def _drop_damaged(self, since: int) -> None:
        parts = self._session.query(_NEW_PARTS.format(since), "JSONCompactEachRow")
        damaged = [
            (f"{named(database)}.{named(table)}", name, int(level))
            for database, table, name, level, path in map(json.loads, parts.bytes().splitlines())
            if not self._whole(f"{named(database)}.{named(table)}", name)
            or (int(level) == 0 and not chdb_tokens.is_noted(Path(path)))
        ]
        for table, name, level in damaged:
            if level == 0:
                self._session.query(f"ALTER TABLE {table} DROP PART {quoted(name)}")
        if any(level for *_, level in damaged):
            # The parts replaced by a damaged merge are still on disk: the next engine loads them.
            sys.stderr.write("a merge of the ClickHouse database could not be written\n")
            os._exit(1)

    def _whole(self, table: str, part: str) -> bool:
        sql = (
            f"CHECK TABLE {table} PART {quoted(part)} SETTINGS check_query_single_value_result = 1"
        )
        return bool(self._session.query(sql, "TSV").bytes().strip() == b"1")
