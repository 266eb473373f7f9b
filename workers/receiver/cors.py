"""Which web pages may read the receiver's answers; a browser asks before it posts JSON.

``ALLOWED_ORIGINS`` is ``*``, or origins with spaces between them (``https://play.example``), or
nothing.  No cookie is ever asked for, so ``*`` gives no page anything that curl has not.
"""

ANY = "*"
_PREFLIGHT = {
    "access-control-allow-methods": "GET, POST",
    "access-control-allow-headers": "content-encoding, content-type",
    "access-control-max-age": "86400",
}


def depends_on_origin(origins):
    """Whether the request's Origin has to be looked at."""
    return origins not in ("", ANY)


def answer_headers(origins, origin):
    """Headers that let a page of ``origin`` read the answer; none where it may not."""
    if origins == ANY:
        return {"access-control-allow-origin": ANY}
    if not origins:
        return {}
    # A cache must not give one page the answer to another.
    if origin and origin in origins.split():
        return {"access-control-allow-origin": origin, "vary": "Origin"}
    return {"vary": "Origin"}


def preflight_headers(answer):
    """What a preflight is told beside ``answer_headers``: nothing where the page may not post."""
    return answer | _PREFLIGHT if "access-control-allow-origin" in answer else answer
