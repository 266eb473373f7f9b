"""Idempotent inserts on a ClickHouse without deduplication tokens (before 22.2).

The schema is ``schema-ledger.sql``.  Each row carries its object's identity, so the table itself
shows whether an object was inserted; a ledger of finished objects avoids that search.  The order of
the steps makes it safe:

1. an object in the ledger is skipped;
2. its lines are inserted into a staging table of this delivery, so a broken upload leaves no rows;
3. one statement moves them to the table unless it has rows of the object already.  The statement
   writes one block, which becomes one part per month: a crash can leave some months complete, so
   the check is per month.  Its query id is derived from the object, and a server runs one query per
   id at a time, so it cannot run beside a statement of an earlier delivery;
4. then the object is entered in the ledger.

visitParam functions extract the JSON fields, and accept anything; a line that cannot be a row is
moved to ingest_errors by a statement like that of step 3.
"""

import hashlib
import secrets

import damaged
from database import DatabaseError, quoted
from tables import RAW_CHARS_MAX

# Read lines verbatim: JSON text does not contain the delimiter, and quotes are not special.
_AS_LINES = {
    "format_csv_delimiter": "\x01",
    "format_csv_allow_single_quotes": "0",
    "format_csv_allow_double_quotes": "0",
}
# A single block, in the order of the lines.
_ONE_BLOCK = {
    "max_threads": "1",
    "max_block_size": "100000000",
    "min_insert_block_size_rows": "100000000",
    "min_insert_block_size_bytes": "1073741824",
}
# `props` is the last key of an event, and may hold keys of any name.
_PROPS = "position(line, ',\"props\":')"
_HEAD = f"substring(line, 1, if({_PROPS} > 0, {_PROPS}, length(line)))"


class Table:
    """As in tables.py, but a time is a DateTime and a column with its milliseconds."""

    def __init__(self, name, time, texts):
        self._name = name
        self._time = time
        milliseconds = f"visitParamExtractInt({_HEAD}, '{time}')"
        self._is_row = (
            f"startsWith(line, '{{') AND endsWith(line, '}}')"
            f" AND {milliseconds} > 0 AND {milliseconds} < 4294967296000"
        )
        self._columns = ", ".join((time, f"{time}_ms", *texts))
        self._values = ", ".join(
            (
                f"toDateTime(intDiv({milliseconds}, 1000), 'UTC') AS {time}",
                f"toUInt16({milliseconds} % 1000)",
                *(_field(text) for text in texts),
            )
        )

    def move(self, stage, source):
        """Statement: copy rows from the staging table, except months that are there already."""
        month = f"toYYYYMM({self._time})"
        return f"""
            INSERT INTO {self._name} (object, {self._columns})
            SELECT {quoted(source)} AS object, {self._values} FROM {stage}
            WHERE {self._is_row} AND (object, {month}) NOT IN
                (SELECT object, {month} FROM {self._name} WHERE object = {quoted(source)})"""

    def refuse(self, stage, source):
        """Statement: copy lines that cannot be rows to ingest_errors, as one part."""
        name = quoted(f"{source}#refused")
        return f"""
            INSERT INTO ingest_errors (object, received_at, worker, reason, detail, raw)
            SELECT {name} AS object, now(), 'insert', 'refused_row', {quoted(source)},
                   substring(line, 1, {RAW_CHARS_MAX})
            FROM {stage} WHERE line != '' AND NOT ({self._is_row})
                AND object NOT IN (SELECT object FROM ingest_errors WHERE object = {name})"""


def _row_binary(text):
    """Encode lines of any bytes as RowBinary; CSV accepts no lone CR and no delimiter."""
    rows = []
    for line in text.split(b"\n"):
        size, head = len(line), bytearray()
        while size > 127:
            head.append(size & 127 | 128)
            size >>= 7
        rows += [bytes(head), bytes([size]), line]
    return b"".join(rows)


def _field(name):
    if name == "props":
        return "visitParamExtractRaw(line, 'props')"
    return f"visitParamExtractString({_HEAD}, '{name}')"


TABLES = {
    "events": Table(
        "events",
        "ts",
        (
            *("event", "player_id", "match_id", "session_id"),
            *("platform", "region", "build", "props"),
        ),
    ),
    "errors": Table(
        "ingest_errors",
        "received_at",
        ("worker", "reason", "detail", "raw", "ip", "user_agent", "country"),
    ),
}


async def insert(database, bucket, source, opened, *, packed, first_line=1):
    """As in tables.py; ``first_line`` is unused, because errors name no line here."""
    known = f"SELECT count() FROM insert_ledger WHERE object = {quoted(source)}"
    if await database.run(known) != "0":
        return
    name = "insert_stage_" + hashlib.sha256(source.encode()).hexdigest()[:24]
    stage = f"{name}_{secrets.token_hex(4)}"
    table = TABLES[bucket]
    await database.run(f"CREATE TABLE {stage} (line String) ENGINE = Log")
    try:
        lines = await opened()
        await database.run(f"INSERT INTO {stage} FORMAT CSV", lines, packed=packed, **_AS_LINES)
    except DatabaseError as error:
        if not error.rows_refused:
            raise
        print(f"{source}: {error}")
        stage = f"{stage}_raw"
        await database.run(f"CREATE TABLE {stage} (line String) ENGINE = Log")
        content = await opened(whole=True)
        for part in damaged.parts(content) if packed else [content]:
            await database.run(f"INSERT INTO {stage} FORMAT RowBinary", _row_binary(part))
    for statement in (table.move(stage, source), table.refuse(stage, source)):
        await database.run(statement, query_id=name, **_ONE_BLOCK)
    await database.run(f"INSERT INTO insert_ledger (object) VALUES ({quoted(source)})")
    # Drop this delivery's staging tables and those left by killed deliveries.  A delivery that is
    # still running then fails, and its retry finds the object in the ledger.
    mine = (
        f"SELECT name FROM system.tables WHERE database = currentDatabase() AND name LIKE '{name}%'"
    )
    for table_name in (await database.run(mine)).split():
        await database.run(f"DROP TABLE IF EXISTS {table_name}")
