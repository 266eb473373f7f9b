"""UTF-8 encoding and decoding with JavaScript's rules."""


def utf8(text: str) -> bytes:
    """Encode as UTF-8; a lone surrogate becomes U+FFFD (Python would raise)."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def text_of(content: bytes) -> str:
    """Decode UTF-8; invalid bytes are replaced, a byte order mark is dropped."""
    return content.decode("utf-8", "replace").removeprefix("\ufeff")
