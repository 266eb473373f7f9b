"""ClickHouse's exceptions: parsed to ClickHouseError, and mapped to HTTP statuses."""

from __future__ import annotations

import errno
import re

from edgesim.errors import ClickHouseError

CANNOT_WRITE_TO_FILE_DESCRIPTOR = 75
CANNOT_OPEN_FILE = 76
NOT_ENOUGH_SPACE = 243
NOT_IMPLEMENTED = 48
UNKNOWN_EXCEPTION = 1002
ZLIB_INFLATE_FAILED = 354

# ClickHouse's src/Server/HTTP/exceptionCodeToHTTPStatus.cpp; all else is 500, READONLY (164) too.
_STATUSES = {
    400: {
        "CANNOT_PARSE_TEXT": 6,
        "THERE_IS_NO_COLUMN": 8,
        "DUPLICATE_COLUMN": 15,
        "CANNOT_PARSE_ESCAPE_SEQUENCE": 25,
        "CANNOT_PARSE_QUOTED_STRING": 26,
        "CANNOT_PARSE_INPUT_ASSERTION_FAILED": 27,
        "BAD_ARGUMENTS": 36,
        "UNKNOWN_ELEMENT_IN_AST": 37,
        "CANNOT_PARSE_DATE": 38,
        "CANNOT_PARSE_DATETIME": 41,
        "ILLEGAL_COLUMN": 44,
        "TYPE_MISMATCH": 53,
        "SYNTAX_ERROR": 62,
        "CANNOT_PARSE_NUMBER": 72,
        "INCORRECT_DATA": 117,
        "UNKNOWN_TYPE_OF_AST_NODE": 123,
        "TOO_DEEP_AST": 167,
        "TOO_BIG_AST": 168,
        "UNEXPECTED_AST_STRUCTURE": 223,
        "VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE": 321,
        "CANNOT_PARSE_UUID": 376,
        "CANNOT_COMPILE_REGEXP": 427,
        "CANNOT_PARSE_DOMAIN_VALUE_FROM_STRING": 441,
        "CANNOT_PARSE_IPV4": 675,
        "CANNOT_PARSE_IPV6": 676,
    },
    401: {"REQUIRED_PASSWORD": 194},
    403: {
        "UNKNOWN_USER": 192,
        "WRONG_PASSWORD": 193,
        "ACCESS_DENIED": 497,
        "SET_NON_GRANTED_ROLE": 512,
        "AUTHENTICATION_FAILED": 516,
    },
    404: {
        "UNKNOWN_FUNCTION": 46,
        "UNKNOWN_IDENTIFIER": 47,
        "UNKNOWN_TYPE": 50,
        "UNKNOWN_STORAGE": 56,
        "UNKNOWN_TABLE": 60,
        "UNKNOWN_AGGREGATE_FUNCTION": 63,
        "UNKNOWN_FORMAT": 73,
        "UNKNOWN_TYPE_OF_QUERY": 78,
        "UNKNOWN_DATABASE": 81,
        "UNKNOWN_SETTING": 115,
        "UNKNOWN_DIRECTION_OF_SORTING": 152,
        "UNKNOWN_DATABASE_ENGINE": 336,
        "UNKNOWN_ROLE": 511,
    },
    408: {"TIMEOUT_EXCEEDED": 159},
    411: {"HTTP_LENGTH_REQUIRED": 381},
    413: {"QUERY_IS_TOO_LARGE": 229},
    415: {"UNSUPPORTED_MEDIA_TYPE": 779},
    501: {"NOT_IMPLEMENTED": NOT_IMPLEMENTED},
    503: {"CANNOT_OPEN_FILE": CANNOT_OPEN_FILE, "SOCKET_TIMEOUT": 209, "CANNOT_SCHEDULE_TASK": 439},
}
_STATUS = {code: status for status, codes in _STATUSES.items() for code in codes.values()}
_OF_ERRNO = {
    errno.ENOSPC: NOT_ENOUGH_SPACE,
    errno.EDQUOT: NOT_ENOUGH_SPACE,
    errno.EFBIG: NOT_ENOUGH_SPACE,
    errno.EMFILE: CANNOT_OPEN_FILE,
    errno.ENFILE: CANNOT_OPEN_FILE,
}
_CODE = re.compile(r"Code: (\d+)")
# Clients wrap the server's text, which may contain the prefix twice and end in a stack trace.
_PREFIX = re.compile(r".*?Code: \d+(?:\.|, e\.displayText\(\) =) (?:DB::Exception: )?", re.DOTALL)
_SUFFIX = re.compile(r"(?:, e\.what\(\) = |,? *Stack trace).*", re.DOTALL)


def http_status(code: int) -> int:
    """Return the HTTP status of ClickHouse's response to an exception."""
    return _STATUS.get(code, 500)


def from_text(text: str, code: int | None = None) -> ClickHouseError:
    """Parse the text of a server's or an engine's exception; ``code`` overrides the text's code."""
    found = _CODE.search(text)
    if code is None:
        code = int(found[1]) if found else UNKNOWN_EXCEPTION
    while found := _PREFIX.match(text):
        text = text[found.end() :]
    text = text.removeprefix("DB::Exception: ")  # the native protocol's prefix
    return ClickHouseError(code, _SUFFIX.sub("", text).strip())


def from_exception(error: BaseException) -> ClickHouseError:
    """Convert any exception of the embedded engine to a ClickHouseError.

    The engine's Python wrapper decodes messages as strict UTF-8.  A message that quotes bytes of
    bad data becomes a UnicodeDecodeError, alone or as the cause of another error, which contains
    the message.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ClickHouseError):
            return cause
        if isinstance(cause, OSError):
            code = _OF_ERRNO.get(cause.errno or 0, CANNOT_WRITE_TO_FILE_DESCRIPTOR)
            return ClickHouseError(code, str(cause))
        if isinstance(cause, UnicodeDecodeError):
            return from_text(bytes(cause.object).decode(errors="backslashreplace"))
        if _CODE.search(str(cause)):
            break
        cause = cause.__cause__ or cause.__context__
    return from_text(str(cause or error))
