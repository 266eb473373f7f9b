"""ClickHouse's HTTP interface through a service binding: run one statement, classify its error."""

import asyncio
from urllib.parse import urlencode

# Exception codes of ClickHouse caused by the rows, not by the server: a retry would fail again.
_ABOUT_ROWS = frozenset(
    (
        "6",  # CANNOT_PARSE_TEXT
        "25",  # CANNOT_PARSE_ESCAPE_SEQUENCE
        "26",  # CANNOT_PARSE_QUOTED_STRING
        "27",  # CANNOT_PARSE_INPUT_ASSERTION_FAILED
        "33",  # CANNOT_READ_ALL_DATA
        "38",  # CANNOT_PARSE_DATE
        "41",  # CANNOT_PARSE_DATETIME
        "53",  # TYPE_MISMATCH
        "69",  # ARGUMENT_OUT_OF_BOUND
        "70",  # CANNOT_CONVERT_TYPE
        "72",  # CANNOT_PARSE_NUMBER
        "117",  # INCORRECT_DATA
        "128",  # TOO_LARGE_ARRAY_SIZE
        "130",  # CANNOT_READ_ARRAY_FROM_TEXT
        "131",  # TOO_LARGE_STRING_SIZE
        "306",  # TOO_DEEP_RECURSION
        "321",  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
        "349",  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
        "407",  # DECIMAL_OVERFLOW
        "467",  # CANNOT_PARSE_BOOL
        "469",  # VIOLATED_CONSTRAINT
        "563",  # CANNOT_READ_MAP_FROM_TEXT
        "632",  # UNEXPECTED_DATA_AFTER_PARSED_VALUE
        "760",  # UNICODE_ERROR
    )
)
_ABOUT_PACKING = frozenset(
    (
        "32",  # ATTEMPT_TO_READ_AFTER_EOF
        "354",  # ZLIB_INFLATE_FAILED
    )
)


class DatabaseError(Exception):
    """ClickHouse refused a statement, or did not reply.

    ``rows_refused``: the cause is a row of the data.  ``not_unpacked``: its gzip is damaged.
    """

    def __init__(self, text, code=""):
        super().__init__(text)
        self.rows_refused = code in _ABOUT_ROWS
        self.not_unpacked = code in _ABOUT_PACKING


class UnreachableError(DatabaseError):
    """Timeout, or a reply that is not ClickHouse's: the next statement would fail too."""


class Database:
    """Client of the service binding; ``seconds`` is the timeout of one statement."""

    def __init__(self, service, seconds):
        self._service = service
        self._seconds = seconds

    async def run(self, sql, data=b"", *, packed=False, **settings):
        """Run one statement and return its result as text; ``packed``: its data is gzip.

        DatabaseError if ClickHouse refuses it, UnreachableError without a reply from ClickHouse.
        """
        url = "http://clickhouse/?" + urlencode({"query": " ".join(sql.split()), **settings})
        headers = {"content-encoding": "gzip"} if packed else {}
        try:
            async with asyncio.timeout(self._seconds):
                answer = await self._service.fetch(url, method="POST", headers=headers, body=data)
                text = (await answer.text()).strip()
        except TimeoutError as error:
            raise UnreachableError(f"ClickHouse gave no answer in {self._seconds} s") from error
        if answer.ok:
            return text
        code = answer.headers.get("x-clickhouse-exception-code")
        problem = f"ClickHouse answered {answer.status}: {text[:500]}"
        raise DatabaseError(problem, code) if code else UnreachableError(problem)


def quoted(text):
    """A SQL string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
