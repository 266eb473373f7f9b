"""CORS headers: the web pages that may read the receiver's responses, and post JSON to it.

``ALLOWED_ORIGINS`` is ``*``, or origins separated by spaces (``https://play.example``), or empty.
Credentials are not allowed, so ``*`` gives a page no more access than curl has.
"""

ANY = "*"
_PREFLIGHT = {
    "access-control-allow-methods": "GET, POST",
    "access-control-allow-headers": "content-encoding, content-type",
    "access-control-max-age": "86400",
}


def depends_on_origin(origins):
    """True if the response depends on the request's Origin header."""
    return origins not in ("", ANY)


def answer_headers(origins, origin):
    """CORS headers of a response: they allow ``origin`` to read it, if it is in ``origins``."""
    if origins == ANY:
        return {"access-control-allow-origin": ANY}
    if not origins:
        return {}
    # A cache must not serve the response for one origin to another.
    if origin and origin in origins.split():
        return {"access-control-allow-origin": origin, "vary": "Origin"}
    return {"vary": "Origin"}


def preflight_headers(answer):
    """``answer`` plus the preflight headers; unchanged if the origin is not allowed."""
    return answer | _PREFLIGHT if "access-control-allow-origin" in answer else answer
