"""Strings as JavaScript writes them."""


def utf8(text: str) -> bytes:
    """UTF-8; half a surrogate pair becomes U+FFFD, where Python would refuse it."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def text_of(content: bytes) -> str:
    """UTF-8 read: broken bytes replaced, a byte order mark dropped."""
    return content.decode("utf-8", "replace").removeprefix("\ufeff")
