"""Deduplication logs of the embedded engine: kept consistent with the rows after a power cut.

An insert records its deduplication token in its table's log: a line of operation, part and token,
written just before the part is renamed into place.  chdb 26.9 syncs neither, so after a power cut

- a part can exist without its line: a repeated insert is stored twice.  The log is therefore
  written through; a line is on disk before the rename begins.
- a line can exist without its part: the retry of a failed insert is taken for a duplicate, and its
  rows are never stored.  ``repair`` drops such lines.
- a line can be torn.  (ext4 can make a file's new length durable before the new bytes, which then
  read as zeros.)  The engine stops reading there, appends after it, and ignores all later tokens
  at the next start.  ``repair`` drops torn lines as well: their inserts were not acknowledged.
"""

from __future__ import annotations

import json
import re
import sys
from bisect import bisect_right
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgesim import durable
from edgesim.clickhouse.chdb.disk import SyncedFolder
from edgesim.clickhouse.chdb.wire import SCRATCH
from edgesim.clickhouse.statements import named

_TABLES = """
    SELECT database, name, data_paths FROM system.tables
    WHERE engine LIKE '%MergeTree' AND database != 'system'"""
_PARTS = """
    SELECT database, table, partition_id, min_block_number::Int64, max_block_number::Int64
    FROM system.parts WHERE active ORDER BY min_block_number
    SETTINGS output_format_json_quote_64bit_integers = 0"""
_LINE = re.compile(rb"([12])\t([^\t\n\0]+)\t([^\t\n\0]+)\n")
_INSERTED = re.compile(rb"([^_]+)_(\d+)_(\d+)_0")
_ADD = b"1"

Blocks = dict[str, tuple[list[int], list[int]]]
"""First and last block numbers of a table's parts, in order, by partition."""


def write_through(path: Path, disk: SyncedFolder) -> None:
    """Set write-through on the logs of all tables; call it again after tables may be created."""
    for folder in path.glob("store/*/*/deduplication_logs"):
        with suppress(FileNotFoundError):  # the table is being dropped
            disk.write_through(folder)  # later logs inherit the attribute
            for log in folder.glob("*.txt"):
                disk.write_through(log)


def repair(session: Any, path: Path) -> None:
    """Drop broken lines, and tokens without rows, from the logs of all tables.

    Run it before the first statement: the engine reads a log when its table is attached, so a
    table whose log was repaired is detached and attached again.
    """
    blocks = _blocks_by_table(session)
    for database, table, folders in _rows(session, _TABLES):
        mended = {
            log: content
            for folder in folders
            for log in (path / folder / "deduplication_logs").glob("*.txt")
            if (content := _mended(log, blocks[database, table])) is not None
        }
        if not mended:
            continue
        name = f"{named(database)}.{named(table)}"
        session.query(f"DETACH TABLE {name}")
        for log, content in mended.items():
            _replace(log, content, path / SCRATCH)
        session.query(f"ATTACH TABLE {name}")
        sys.stderr.write(f"the deduplication log of {database}.{table} was repaired\n")


def is_noted(part: Path) -> bool:
    """Return True if the log has a line of this newly inserted part, or the table has no log."""
    logs = [*(part.parent / "deduplication_logs").glob("*.txt")]
    name = part.name.encode()
    return not logs or any(
        line[1] == _ADD and line[2] == name
        for log in logs
        for line in _LINE.finditer(log.read_bytes())
    )


def _rows(session: Any, sql: str) -> list[Any]:
    return [*map(json.loads, session.query(sql, "JSONCompactEachRow").bytes().splitlines())]


def _blocks_by_table(session: Any) -> dict[tuple[str, str], Blocks]:
    found: dict[tuple[str, str], Blocks] = defaultdict(lambda: defaultdict(lambda: ([], [])))
    for database, table, partition, first, last in _rows(session, _PARTS):
        firsts, lasts = found[database, table][partition]
        firsts.append(first)
        lasts.append(last)
    return found


def _mended(log: Path, blocks: Blocks) -> bytes | None:
    """Return the repaired content of a log; None if it needs no repair."""
    content = log.read_bytes()
    kept: list[bytes] = []
    dropped: set[bytes] = set()  # by a later line, which the engine wrote for DROP PART or similar
    for line in reversed([*_LINE.finditer(content)]):
        operation, part, token = line.groups()
        if operation != _ADD:
            dropped.add(token)
        elif token not in dropped and not _has_rows(part, blocks):
            continue
        kept.append(line[0])
    wanted = b"".join(reversed(kept))
    return None if wanted == content else wanted


def _has_rows(part: bytes, blocks: Blocks) -> bool:
    """Return True if the inserted part is active, or an active part was merged from it."""
    parsed = _INSERTED.fullmatch(part)
    if parsed is None:
        return True  # a part name in the syntax of before 2017: undecidable, so keep the line
    firsts, lasts = blocks[parsed[1].decode(errors="replace")]
    at = bisect_right(firsts, int(parsed[2])) - 1
    return at >= 0 and int(parsed[3]) <= lasts[at]


def _replace(log: Path, content: bytes, scratch: Path) -> None:
    # Not written beside the log: the engine reads every file of that folder as a log.
    new = scratch / log.name
    durable.write_file(new, content)
    new.replace(log)
    durable.flush_folder(log.parent)
