"""Which bucket's objects become rows of which table, on a ClickHouse that knows tokens.

An insert carries its object's identity as ``insert_deduplication_token``, and the table remembers
the tokens of its last inserts (``non_replicated_deduplication_window`` in the schema, or the
replicated tables' own), so the same object inserts once, however often it is sent.  One object is
one block: a block is all there or not at all, and blocks of a repeated insert could be cut
elsewhere.
"""

from database import DatabaseError, quoted

RAW_CHARS_MAX = 8192

SETTINGS = {
    "async_insert": "0",
    "input_format_skip_unknown_fields": "1",
    # One block, up to 1 GiB in memory.
    "min_insert_block_size_rows": "0",
    "min_insert_block_size_bytes": "1073741824",
    # One client with a broken clock must not make the whole object uninsertable: events of more
    # than 100 months in one insert are refused by default.
    "max_partitions_per_insert_block": "0",
}


class Table:
    """A table and its columns: ``times`` are milliseconds in the objects, ``texts`` are strings.

    ``insert`` reads rows as they are.  ``salvage`` and ``refuse`` divide the lines of an object
    that holds rows which ``insert`` refuses: all that can be a row, and all that cannot.
    """

    def __init__(self, name, binding, time, texts):
        self.binding = binding
        columns = ", ".join((time, *texts))
        values = ", ".join(texts)
        structure = ", ".join((f"{time} Int64", *(f"{text} String" for text in texts)))
        # A DateTime64 would read the number as seconds.
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
        """The statement that keeps the other lines in ``ingest_errors``, each with its number."""
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
    # An object is kept as its text, as JSONEachRow keeps it.
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


# Lines keep their order and so their numbers.
IN_ORDER = {"max_threads": "1", "input_format_parallel_parsing": "0"}


async def insert(database, bucket, source, opened, *, packed, first_line=1):
    """Insert an object's rows; ``opened()`` gives its bytes, ``source`` names it and its version.

    Rows that ClickHouse refuses go to ingest_errors and the others in, by two more passes over the
    object.  All three inserts have tokens, so it may break off anywhere and be done again.
    ``first_line`` is the number of the first line in what the errors name.
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
        # The same token: nothing of the first insert is there, and should it ever be accepted after
        # all (a newer server, say), it would double these.
        await send(table.salvage, source)
        await send(table.refuse(source, first_line), f"{source}#refused", **IN_ORDER)
