"""What an event must be, and what becomes of it: pure functions, bounded work for any input."""

import json

EVENTS_MAX = 500
EVENT_CHARS_MAX = 64
ID_CHARS_MAX = 128
DAY_MS = 86_400_000
DEPTH_MAX = 16
SAFE_INT = 2**53 - 1
"""The largest integer that JavaScript, which passes every event on, can hold."""

_EVENT_CHARS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:-")
_OPTIONAL = ("match_id", "session_id", "platform", "region", "build")
_KNOWN = frozenset(("event", "player_id", "ts", "props", *_OPTIONAL))
# C0, DEL and C1 go: they break terminals, logs and TSV, and no game means them.  Half a character
# (a lone surrogate) is replaced: nothing behind here can encode it, and its batch would be lost.
_UNWANTED = {
    **dict.fromkeys((*range(0x20), *range(0x7F, 0xA0))),
    **dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),
}


class InvalidError(Exception):
    """Why a payload is refused: a stable word, and which field and why."""

    def __init__(self, error, detail):
        super().__init__(detail)
        self.error = error
        self.detail = detail


def read_events(body, now_ms):
    """The sanitised events of a request body: one object, or an array of up to 500.

    All or nothing: a client that retries a half-accepted array would double its good half.
    """
    try:
        payload = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
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


def to_line(event):
    """The event as one log line's JSON: ASCII, so that nothing in it can break the line."""
    return json.dumps(event, separators=(",", ":"))


def _event(item, where, now_ms):
    if not isinstance(item, dict):
        raise InvalidError("invalid_event", f"{where or 'the event'} must be an object")
    event = {
        "event": _name(item.get("event"), where),
        "player_id": _text(item.get("player_id"), where + "player_id"),
        "ts": _timestamp(item.get("ts"), where, now_ms),
    }
    for field in _OPTIONAL:
        if item.get(field) is not None:
            event[field] = _text(item[field], where + field)
    props = item.get("props")
    if props is None:
        props = {}
    if not isinstance(props, dict):
        raise InvalidError("invalid_event", f"{where}props must be an object")
    clean = _clean(props, where + "props", 1)
    for key, value in item.items():
        if key not in _KNOWN:
            clean.setdefault(_clean_text(key), _clean(value, where + "props", 2))
    event["props"] = clean
    return event


def _name(value, where):
    if not isinstance(value, str) or not 1 <= len(value) <= EVENT_CHARS_MAX:
        raise InvalidError(
            "invalid_event", f"{where}event must be 1 to {EVENT_CHARS_MAX} characters"
        )
    if not _EVENT_CHARS.issuperset(value):
        raise InvalidError(
            "invalid_event", f"{where}event may only have letters, digits and _ . : -"
        )
    return value


def _text(value, field):
    if not isinstance(value, str) or not 1 <= len(value) <= ID_CHARS_MAX:
        raise InvalidError("invalid_event", f"{field} must be 1 to {ID_CHARS_MAX} characters")
    text = _clean_text(value)
    if not text:
        raise InvalidError("invalid_event", f"{field} has nothing but control characters")
    return text


def _timestamp(value, where, now_ms):
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidError(
            "invalid_event", f"{where}ts must be an integer of milliseconds since 1970"
        )
    if not 0 <= value <= now_ms + DAY_MS:
        raise InvalidError("invalid_event", f"{where}ts must be after 1970 and at most a day ahead")
    return value


def _clean(value, where, depth):
    """The value with its strings and keys cleaned, and with no number that would be changed later.

    An integer beyond JavaScript's (a 64-bit id, say) becomes a string: all its digits survive.
    """
    if isinstance(value, str):
        return _clean_text(value)
    if isinstance(value, int) and abs(value) > SAFE_INT:
        return str(value)
    if isinstance(value, dict | list) and depth > DEPTH_MAX:
        raise InvalidError("invalid_event", f"{where} is nested deeper than {DEPTH_MAX}")
    if isinstance(value, dict):
        return {_clean_text(key): _clean(item, where, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item, where, depth + 1) for item in value]
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        raise InvalidError("invalid_json", f"{where} has a number that is too large")
    return value


def _clean_text(text):
    # Nothing unwanted is printable, and asking that is much cheaper than translating.
    return text if text.isprintable() else text.translate(_UNWANTED)


def _no_constant(name):
    raise ValueError(f"{name} is not a JSON number")
