"""Strings as JavaScript writes them."""


def utf8(text: str) -> bytes:
    """UTF-8; half a surrogate pair becomes U+FFFD, where Python would refuse it."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()
