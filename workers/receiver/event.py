"""Validation and cleaning of events: pure functions, bounded work for any input.

This is most of a request's cost, so it is optimised: the decoder and the encoder are created once
(json.loads and json.dumps with options create one per call), and values are dispatched by exact
type.  It is linear in the body, which is bounded, and uses no regular expressions.
"""

import json
import math
import zlib

EVENTS_MAX = 500
EVENT_CHARS_MAX = 64
ID_CHARS_MAX = 128
DAY_MS = 86_400_000
DEPTH_MAX = 16
SAFE_INT = 2**53 - 1
"""The largest exact integer of JavaScript, through which every event passes."""
GZIP_MAGIC = b"\x1f\x8b"
TOO_LARGE = "payload_too_large"
"""Error code of a payload that is refused for its size."""

_EVENT_CHARS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:-")
_OPTIONAL = ("match_id", "session_id", "platform", "region", "build")
_KNOWN = frozenset(("event", "player_id", "ts", "props", *_OPTIONAL))
# C0, DEL and C1: they break terminals, logs and TSV, and no game needs them.
_CONTROLS = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)))


class InvalidError(Exception):
    """A refused payload: ``error`` is a stable code, ``detail`` names the field and the reason."""

    def __init__(self, error, detail):
        super().__init__(detail)
        self.error = error
        self.detail = detail


def unpack(body, limit):
    """The body, unpacked if it is gzip, which is detected by its first bytes (never JSON's).

    At most ``limit`` bytes are unpacked.  InvalidError for more, or for damaged gzip.
    """
    if not body.startswith(GZIP_MAGIC):
        return body
    member = zlib.decompressobj(31)
    try:
        text = member.decompress(body, limit + 1)
    except zlib.error as error:
        raise InvalidError("invalid_gzip", f"the body is not gzip: {error}") from error
    if len(text) > limit:
        raise InvalidError(TOO_LARGE, f"more than {limit} bytes when unpacked")
    if not member.eof:
        raise InvalidError("invalid_gzip", "the body's gzip ends early")
    if member.unused_data:
        raise InvalidError("invalid_gzip", "the body goes on after its gzip has ended")
    return text


def excerpt(body, limit):
    """The first ``limit`` bytes of a body, unpacked if it is gzip; a placeholder if that fails."""
    if not body.startswith(GZIP_MAGIC):
        return body[:limit]
    try:
        return zlib.decompressobj(31).decompress(body, limit)
    except zlib.error:
        return b"(broken gzip)"


def read_events(body, now_ms):
    """The sanitised events of a request body: one object, or an array of up to 500.

    One invalid event refuses the whole body (InvalidError): a retry of a partly accepted array
    would duplicate its valid events.
    """
    try:
        payload = _decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidError("invalid_json", f"the body is not UTF-8: {error.reason}") from error
    except RecursionError as error:
        raise InvalidError("invalid_json", "the body is nested too deeply") from error
    except ValueError as error:
        raise InvalidError("invalid_json", f"the body is not JSON: {error}") from error
    if not isinstance(payload, list):
        return [_event(payload, "", now_ms)]
    if not payload:
        raise InvalidError("invalid_event", "the array is empty")
    if len(payload) > EVENTS_MAX:
        raise InvalidError(
            "too_many_events", f"{len(payload)} events; at most {EVENTS_MAX} a request"
        )
    return [_event(item, f"[{index}].", now_ms) for index, item in enumerate(payload)]


def _no_constant(name):
    raise ValueError(f"{name} is not a JSON number")


_decode = json.JSONDecoder(parse_constant=_no_constant).decode
to_line = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
"""The event as one log line's JSON: ASCII, so that nothing in it can break the line."""


def _event(item, where, now_ms):
    if not isinstance(item, dict):
        raise InvalidError("invalid_event", f"{where or 'the event'} must be an object")
    event = {
        "event": _name(item.get("event"), where),
        "player_id": _text(item.get("player_id"), where, "player_id"),
        "ts": _timestamp(item.get("ts"), where, now_ms),
    }
    for field in _OPTIONAL:
        value = item.get(field)
        if type(value) is str and value.isprintable() and 0 < len(value) <= ID_CHARS_MAX:
            event[field] = value  # fast path: almost every value
        elif value is not None:
            event[field] = _text(value, where, field)
    props = item.get("props")
    if props is None:
        props = {}
    if not isinstance(props, dict):
        raise InvalidError("invalid_event", f"{where}props must be an object")
    clean = _clean_dict(props, where, 1)
    if not _KNOWN.issuperset(item):
        more = _clean_dict({key: item[key] for key in item if key not in _KNOWN}, where, 1)
        clean = more | clean
    event["props"] = clean
    return event


def _name(value, where):
    if not isinstance(value, str) or not 1 <= len(value) <= EVENT_CHARS_MAX:
        raise InvalidError(
            "invalid_event", f"{where}event must be 1 to {EVENT_CHARS_MAX} characters"
        )
    # Most names are identifiers, which one call can check.
    if not (value.isascii() and value.isidentifier()) and not _EVENT_CHARS.issuperset(value):
        raise InvalidError(
            "invalid_event", f"{where}event may only have letters, digits and _ . : -"
        )
    return value


def _text(value, where, field):
    if not isinstance(value, str) or not 1 <= len(value) <= ID_CHARS_MAX:
        detail = f"{where}{field} must be 1 to {ID_CHARS_MAX} characters"
        raise InvalidError("invalid_event", detail)
    text = _clean_text(value)
    if not text:
        raise InvalidError("invalid_event", f"{where}{field} has nothing but control characters")
    return text


def _timestamp(value, where, now_ms):
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidError(
            "invalid_event", f"{where}ts must be an integer of milliseconds since 1970"
        )
    if not 0 <= value <= now_ms + DAY_MS:
        raise InvalidError("invalid_event", f"{where}ts must be after 1970 and at most a day ahead")
    return value


def _clean_dict(value, where, depth):
    """The object with its strings and keys cleaned, and its numbers exact in JavaScript.

    An integer beyond JavaScript's range (a 64-bit id, say) becomes a string and keeps all digits.
    """
    clean = {}
    for key, item in value.items():
        kind = type(item)
        if kind is str:  # the most frequent type: avoid a call
            kept = item if item.isprintable() else _clean_text(item)
        else:
            kept = _clean_item(item, kind, where, depth)
        clean[key if key.isprintable() else _clean_text(key)] = kept
    return clean


def _clean_item(item, kind, where, depth):
    if kind is int:
        return item if -SAFE_INT <= item <= SAFE_INT else str(item)
    if kind is float:
        if math.isinf(item):
            raise InvalidError("invalid_json", f"{where}props has a number that is too large")
        return item
    if kind is bool or item is None:
        return item
    if kind is str:
        return _clean_text(item)
    if depth >= DEPTH_MAX:
        raise InvalidError("invalid_event", f"{where}props is nested deeper than {DEPTH_MAX}")
    if kind is dict:
        return _clean_dict(item, where, depth + 1)
    return [_clean_item(each, type(each), where, depth + 1) for each in item]


def _clean_text(text):
    # Printable text has nothing to remove, and the check is much cheaper than translating.
    if text.isprintable():
        return text
    # A lone surrogate is replaced: no later stage can encode it, and its batch would be lost.  By
    # way of UTF-16, because a translation table for surrogates would have 2,048 entries.
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole.translate(_CONTROLS)
