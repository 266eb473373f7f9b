"""Conversion of traces to records: pure functions over one trace at a time.

Each record has a size: the bytes that a Pipeline will count, or slightly more.
"""

import json

EVENT_MARK = "PIPE_ME "
ERROR_MARK = "PIPE_ERR "
RAW_CHARS_MAX = 8192
CLIENT_CHARS_MAX = 512
SEND_BYTES_MAX = 4_000_000
_FINE = ("ok", "canceled")


def line_of(message):
    """The strings of a console call as one line: one from print, several from console.log.

    Other values (a JavaScript null, an object) are left out: their text differs between runtimes.
    """
    return " ".join([part for part in message if isinstance(part, str)])


def read_line(line):
    """(stream, record, size) of a marked line; None for any other.

    A marked line that does not parse does not affect other lines: it returns ("errors", (reason,
    detail, raw), 0), which ``read_trace`` turns into a record.
    """
    if line.startswith(EVENT_MARK):
        stream, text = "events", line[len(EVENT_MARK) :]
    elif line.startswith(ERROR_MARK):
        stream, text = "errors", line[len(ERROR_MARK) :]
    else:
        return None
    try:
        record = _parse(text)
    except (ValueError, RecursionError) as error:
        return "errors", ("unparsable_log", str(error), line), 0
    if not isinstance(record, dict):
        return "errors", ("unparsable_log", "not a JSON object", line), 0
    return stream, record, len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _parse(text):
    """The line's JSON; ValueError for a value that makes a Pipeline refuse the whole send."""
    record = _DECODER.decode(text)
    if "\\u" in text:
        json.dumps(record, ensure_ascii=False).encode()  # UnicodeEncodeError for a lone surrogate
    return record


def _refuse_constant(name):
    raise ValueError(f"{name} is not a JSON number")


def _exact_int(digits):
    number = int(digits)
    if abs(number) >= 2**53:
        raise ValueError(f"{digits[:32]} is more than JavaScript can hold")
    return number


def _finite(digits):
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{digits[:32]} is more than JavaScript can hold")
    return number


_DECODER = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_int=_exact_int, parse_float=_finite
)


def error_record(trace, received_at, reason, detail, raw=""):
    """A record of the errors stream, in the receiver's shape, and its size in bytes."""
    headers = _headers(trace)
    record = {
        "received_at": int(received_at),
        "worker": _text(trace.scriptName),
        "reason": reason,
        "detail": detail[:RAW_CHARS_MAX],
        "raw": raw[:RAW_CHARS_MAX],
        "ip": _client(headers, "cf-connecting-ip"),
        "user_agent": _client(headers, "user-agent"),
        "country": _client(headers, "cf-ipcountry"),
    }
    line = json.dumps(record)
    if "\\ud" in line:  # a lone surrogate, which a Pipeline refuses
        record = json.loads(json.dumps(record, ensure_ascii=False).encode("utf-8", "replace"))
    return record, len(line)


def _headers(trace):
    """Request headers of a trace, names in lower case; None for any other event."""
    request = getattr(trace.event, "request", None)
    return getattr(request, "headers", None)


def _client(headers, name):
    return _text(getattr(headers, name, None))[:CLIENT_CHARS_MAX]


def _text(value):
    return value if isinstance(value, str) else ""


def read_trace(trace):
    """Two lists of (record, size) from one trace: events and errors."""
    when = trace.eventTimestamp or 0
    streams = {"events": [], "errors": []}
    lines = 0
    for log in trace.logs:
        found = read_line(line_of(log.message))
        if found is None:
            continue
        lines += 1
        stream, record, size = found
        if isinstance(record, tuple):
            record, size = error_record(trace, log.timestamp, *record)
        streams[stream].append((record, size))
    for reason, detail in _troubles(trace, lines):
        streams["errors"].append(error_record(trace, when, reason, detail))
    return streams["events"], streams["errors"]


def _troubles(trace, lines):
    """(reason, detail) of each failure of the invocation itself."""
    troubles = [(trace.outcome, str(exception.message)) for exception in trace.exceptions]
    if not troubles and trace.outcome not in _FINE:
        troubles.append((trace.outcome, f"the invocation ended as {trace.outcome}"))
    if getattr(trace, "truncated", False):
        detail = f"the trace was over its budget: what was logged after {lines} records is lost"
        troubles.append(("truncated", detail))
    return troubles


def split(records, limit=SEND_BYTES_MAX):
    """Split records into lists of at most ``limit`` bytes; a larger record gets its own."""
    chunks, size = [], limit + 1
    for record, record_size in records:
        if size + record_size > limit:
            chunks.append([])
            size = 0
        chunks[-1].append(record)
        size += record_size
    return chunks
