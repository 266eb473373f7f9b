"""The same on a ClickHouse that knows no tokens (before 22.2), with ``schema-ledger.sql``.

Each row carries its object's identity, so the rows themselves say whether they are there; a ledger
of finished objects spares looking for them.  The order is what makes it safe:

1. an object in the ledger is done;
2. its lines go into a staging table of this delivery's own, so a broken upload leaves no rows;
3. one statement moves them to the table unless rows of the object are there already.  It is one
   block, and a block is one part for each month: a crash in between leaves whole months, so it is
   months that are looked for.  Its query id is the object's, and a server runs one query of an id
   at a time: a statement of an earlier delivery that still runs is not run beside;
4. only then is the object entered in the ledger.

JSON is taken apart by visitParam functions, which refuse nothing; a line that can be no row goes to
ingest_errors by a statement like 3.
"""

import hashlib
import secrets

import damaged
from database import DatabaseError, quoted
from tables import RAW_CHARS_MAX

# The lines as they are: no JSON has this character, and quotes are text like others.
_AS_LINES = {
    "format_csv_delimiter": "\x01",
    "format_csv_allow_single_quotes": "0",
    "format_csv_allow_double_quotes": "0",
}
# One block, in the order of the lines.
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
    """As in tables.py: here times are a DateTime and its milliseconds in a column of their own."""

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
        """Rows from the staging table to the table, but for months that are there."""
        month = f"toYYYYMM({self._time})"
        return f"""
            INSERT INTO {self._name} (object, {self._columns})
            SELECT {quoted(source)} AS object, {self._values} FROM {stage}
            WHERE {self._is_row} AND (object, {month}) NOT IN
                (SELECT object, {month} FROM {self._name} WHERE object = {quoted(source)})"""

    def refuse(self, stage, source):
        """Lines that can be no row, to ingest_errors; they are one part."""
        name = quoted(f"{source}#refused")
        return f"""
            INSERT INTO ingest_errors (object, received_at, worker, reason, detail, raw)
            SELECT {name} AS object, now(), 'insert', 'refused_row', {quoted(source)},
                   substring(line, 1, {RAW_CHARS_MAX})
            FROM {stage} WHERE line != '' AND NOT ({self._is_row})
                AND object NOT IN (SELECT object FROM ingest_errors WHERE object = {name})"""


def _row_binary(text):
    """Lines of any bytes, where CSV takes no lone CR and no delimiter of ours."""
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
    """As in tables.py; ``first_line`` is of no use, since errors name no line here."""
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
    # This delivery's stage, and what others have left that were killed; one that still runs fails,
    # and finds the object done when it is tried again.
    mine = (
        f"SELECT name FROM system.tables WHERE database = currentDatabase() AND name LIKE '{name}%'"
    )
    for table_name in (await database.run(mine)).split():
        await database.run(f"DROP TABLE IF EXISTS {table_name}")
