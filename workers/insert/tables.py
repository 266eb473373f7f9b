"""Tables by bucket, and idempotent inserts on a ClickHouse with deduplication tokens.

An insert carries its object's identity as ``insert_deduplication_token``.  The table keeps the
tokens of its last inserts (``non_replicated_deduplication_window`` in the schema, or the setting of
replicated tables), so a repeated object is inserted once.  One object is one block: a block is
atomic, and a repeated insert could be split into different blocks.
"""

from database import DatabaseError, quoted

RAW_CHARS_MAX = 8192

SETTINGS = {
    "async_insert": "0",
    "input_format_skip_unknown_fields": "1",
    # A single block, up to 1 GiB in memory.
    "min_insert_block_size_rows": "0",
    "min_insert_block_size_bytes": "1073741824",
    # By default an insert with events of more than 100 months is refused; one client with a wrong
    # clock must not cause that for the whole object.
    "max_partitions_per_insert_block": "0",
}


class Table:
    """A table: ``time`` is the column that objects have in milliseconds, ``texts`` are strings.

    ``insert`` accepts valid rows only.  If it refuses an object, ``salvage`` inserts the lines that
    can be rows and ``refuse`` records the others.
    """

    def __init__(self, name, binding, time, texts):
        self.binding = binding
        columns = ", ".join((time, *texts))
        values = ", ".join(texts)
        structure = ", ".join((f"{time} Int64", *(f"{text} String" for text in texts)))
        # A DateTime64 would parse the number as seconds.
        self.insert = f"""
            INSERT INTO {name} ({columns})
            SELECT fromUnixTimestamp64Milli({time}, 'UTC') AS {time}, {values}
            FROM input('{structure}') FORMAT JSONEachRow"""
        fields = ", ".join(_field(text) for text in texts)
        number = f"toInt64OrNull(JSONExtract(line, '{time}', 'String'))"
        self._is_row = f"isValidJSON(line) AND JSONType(line) = 'Object' AND {number} IS NOT NULL"
        self._why = f"""multiIf(
            NOT isValidUTF8(line), 'not UTF-8', NOT isValidJSON(line), 'not JSON',
            JSONType(line) != 'Object', 'not an object', 'no milliseconds in {time}')"""
        self.salvage = f"""
            INSERT INTO {name} ({columns})
            SELECT fromUnixTimestamp64Milli(assumeNotNull({number}), 'UTC') AS {time}, {fields}
            FROM input('line String') WHERE {self._is_row} FORMAT LineAsString"""

    def refuse(self, source, first_line):
        """Statement: insert the other lines into ``ingest_errors``, each with its number."""
        return f"""
            INSERT INTO ingest_errors (received_at, worker, reason, detail, raw)
            SELECT now64(3), 'insert', 'refused_row',
                   concat({quoted(source)}, ': line ', toString(number), ': ', {self._why}),
                   substringUTF8(toValidUTF8(line), 1, {RAW_CHARS_MAX})
            FROM (SELECT line, rowNumberInAllBlocks() + {first_line} AS number
                  FROM input('line String'))
            WHERE replaceRegexpAll(line, '[ \\t\\r]', '') != '' AND NOT ({self._is_row})
            FORMAT LineAsString"""


def _field(name):
    # A JSON object stays JSON text, as with JSONEachRow.
    if name == "props":
        return "JSONExtractRaw(line, 'props')"
    return f"JSONExtract(line, '{name}', 'String')"


TABLES = {
    "events": Table(
        "events",
        "EVENTS",
        "ts",
        (
            *("event", "player_id", "match_id", "session_id"),
            *("platform", "region", "build", "props"),
        ),
    ),
    "errors": Table(
        "ingest_errors",
        "ERRORS",
        "received_at",
        ("worker", "reason", "detail", "raw", "ip", "user_agent", "country"),
    ),
}


# Keep the order of the lines: their numbers depend on it.
IN_ORDER = {"max_threads": "1", "input_format_parallel_parsing": "0"}


async def insert(database, bucket, source, opened, *, packed, first_line=1):
    """Insert an object's rows; ``opened()`` returns its bytes, ``source`` names it and its version.

    If ClickHouse refuses rows, two more passes over the object insert the others, and the refused
    lines into ingest_errors.  All three inserts have deduplication tokens, so a retry is safe at
    any point.  ``first_line`` is the number of the first line, for the errors.
    """
    table = TABLES[bucket]

    async def send(statement, token, **more):
        settings = SETTINGS | {"insert_deduplication_token": token} | more
        await database.run(statement, await opened(), packed=packed, **settings)

    try:
        await send(table.insert, source)
    except DatabaseError as error:
        if not error.rows_refused:
            raise
        print(f"{source}: {error}")
        # The same token: the first insert left no rows, and if a retry of it were accepted later
        # (by a newer server, say), it would duplicate these.
        await send(table.salvage, source)
        await send(table.refuse(source, first_line), f"{source}#refused", **IN_ORDER)
