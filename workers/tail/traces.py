"""From traces to records: pure functions over one trace at a time.

A record goes with its size: the bytes that a Pipeline will count, or somewhat more.
"""

import json

EVENT_MARK = "PIPE_ME "
ERROR_MARK = "PIPE_ERR "
RAW_CHARS_MAX = 8192
CLIENT_CHARS_MAX = 512
SEND_BYTES_MAX = 4_000_000
_FINE = ("ok", "canceled")


def line_of(message):
    """A console call's strings as one line: one from print, several from console.log.

    What is no string (a JavaScript null, an object) has no text that is the same everywhere.
    """
    return " ".join([part for part in message if isinstance(part, str)])


def read_line(line):
    """(stream, record, size) of a marked line; None for any other.

    A marked line that does not parse never costs its neighbours: it is (errors, (reason, detail,
    raw), 0), for the trace to make a record of.
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
    """The line's JSON; ValueError for what no Pipeline takes, which would cost the whole send."""
    record = _DECODER.decode(text)
    if "\\u" in text:
        json.dumps(record, ensure_ascii=False).encode()  # UnicodeEncodeError for half a character
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
    """A row of the errors stream, in the shape of all of them, and its size."""
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
    if "\\ud" in line:  # half a character, which no Pipeline takes
        record = json.loads(json.dumps(record, ensure_ascii=False).encode("utf-8", "replace"))
    return record, len(line)


def _headers(trace):
    """The headers of a request's trace, names in lower case; None for any other invocation."""
    request = getattr(trace.event, "request", None)
    return getattr(request, "headers", None)


def _client(headers, name):
    return _text(getattr(headers, name, None))[:CLIENT_CHARS_MAX]


def _text(value):
    return value if isinstance(value, str) else ""


def read_trace(trace):
    """Two lists of (record, size) of one trace: events, errors."""
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
    """What went wrong with the invocation itself."""
    troubles = [(trace.outcome, str(exception.message)) for exception in trace.exceptions]
    if not troubles and trace.outcome not in _FINE:
        troubles.append((trace.outcome, f"the invocation ended as {trace.outcome}"))
    if getattr(trace, "truncated", False):
        detail = f"the trace was over its budget: what was logged after {lines} records is lost"
        troubles.append(("truncated", detail))
    return troubles


def split(records, limit=SEND_BYTES_MAX):
    """Lists of records, each list's sizes within ``limit`` as far as single records allow."""
    chunks, size = [], limit + 1
    for record, record_size in records:
        if size + record_size > limit:
            chunks.append([])
            size = 0
        chunks[-1].append(record)
        size += record_size
    return chunks
