"""The URL standard's parser: text to the parts of a URL, and back."""

from __future__ import annotations

import re
from typing import Any

from js._url_host import C0, InvalidUrlError, encoded, parse_host

PORTS = {"ftp": 21, "file": None, "http": 80, "https": 443, "ws": 80, "wss": 443}
"""Special schemes and their default ports."""
_SCHEME = r"([A-Za-z][A-Za-z0-9+.-]*):"
_DRIVE = r"[A-Za-z][:|]"
_DRIVE_FIRST = r"[A-Za-z][:|](?:[/\\?#]|\Z)"
_SINGLE_DOTS = {".", "%2e"}
_DOUBLE_DOTS = {"..", ".%2e", "%2e.", "%2e%2e"}

FRAGMENT = C0 | frozenset(b' "<>`')
QUERY = C0 | frozenset(b' "#<>')
SPECIAL_QUERY = QUERY | frozenset(b"'")
PATH = QUERY | frozenset(b"?^`{}")
USERINFO = PATH | frozenset(b"/:;=@[\\]|")


class Parts:
    """Parts of a URL; ``path`` is text if it is opaque (``mailto:x``)."""

    # No dataclass: that module would take half of the time of the SDK's import.
    def __init__(self, scheme: str) -> None:
        self.scheme = scheme
        self.username = self.password = ""
        self.host: str | None = None
        self.port: int | None = None
        self.path: list[str] | str = []
        self.query: str | None = None
        self.fragment: str | None = None

    def replaced(self, **values: Any) -> Parts:
        """Return a copy with other values."""
        copy = Parts(self.scheme)
        vars(copy).update(vars(self) | values)
        return copy

    @property
    def is_special(self) -> bool:
        """True for http and the other schemes that always have a host or are files."""
        return self.scheme in PORTS

    @property
    def pathname(self) -> str:
        """The path as text."""
        return (
            self.path if isinstance(self.path, str) else "".join(f"/{each}" for each in self.path)
        )

    @property
    def authority(self) -> str:
        """Host and port."""
        port = "" if self.port is None else f":{self.port}"
        return f"{self.host or ''}{port}"

    @property
    def href(self) -> str:
        """The URL as text."""
        text = f"{self.scheme}:"
        if self.host is not None:
            password = f":{self.password}" if self.password else ""
            user = f"{self.username}{password}"
            text += f"//{user}@{self.authority}" if user else f"//{self.authority}"
        elif isinstance(self.path, list) and len(self.path) > 1 and not self.path[0]:
            text += "/."
        text += self.pathname
        text += "" if self.query is None else f"?{self.query}"
        return text + ("" if self.fragment is None else f"#{self.fragment}")


def parse(text: str, base: Parts | None = None) -> Parts:
    """Return the parts of a URL, which may be relative to a base; InvalidUrlError otherwise."""
    text = re.sub(r"[\t\n\r]", "", text.strip("".join(map(chr, range(0x21)))))
    scheme = re.match(_SCHEME, text)
    if scheme is None:
        return _without_scheme(text, base)
    url = Parts(scheme[1].lower())
    rest = text[scheme.end() :]
    if url.scheme == "file":
        return _file(url, rest, base if base is not None and base.scheme == "file" else None)
    if url.is_special:
        if base is not None and base.scheme == url.scheme and not rest.startswith("//"):
            return _relative(url, rest, base)
        return _authority(url, rest.lstrip("/\\"))
    if rest.startswith("//"):
        return _authority(url, rest[2:])
    if rest.startswith("/"):
        return _path(url, rest)
    path, query, fragment = divided(rest)
    if path.endswith(" ") and (query is not None or fragment is not None):
        path = f"{path[:-1]}%20"
    url.path = encoded(path, C0)
    return _ended(url, query, fragment)


def _without_scheme(text: str, base: Parts | None) -> Parts:
    if base is None:
        raise InvalidUrlError
    if isinstance(base.path, str):
        if not text.startswith("#"):
            raise InvalidUrlError
        return base.replaced(fragment=encoded(text[1:], FRAGMENT))
    if base.scheme == "file":
        return _file(Parts("file"), text, base)
    return _relative(Parts(base.scheme), text, base)


def _relative(url: Parts, rest: str, base: Parts) -> Parts:
    slashes = "/\\" if url.is_special else "/"
    if rest[:1] and rest[0] in slashes and rest[1:2] and rest[1] in slashes:
        return _authority(url, rest.lstrip(slashes) if url.is_special else rest[2:])
    url.username, url.password, url.host, url.port = (
        base.username,
        base.password,
        base.host,
        base.port,
    )
    if rest[:1] and rest[0] in slashes:
        return _path(url, rest)
    return _from_folder(url, rest, base)


def _from_folder(url: Parts, rest: str, base: Parts) -> Parts:
    """Complete a URL by text relative to the folder of the base's path."""
    assert isinstance(base.path, list)
    path, query, fragment = divided(rest)
    if path:
        return _path(url, rest, base.path[:-1])
    url.path = list(base.path)
    url.query = base.query
    return _ended(url, query, fragment)


def _file(url: Parts, rest: str, base: Parts | None) -> Parts:
    url.host = ""
    if rest[:1] and rest[0] in "/\\":
        if rest[1:2] and rest[1] in "/\\":
            return _file_host(url, rest[2:])
        kept = []
        if base is not None:
            url.host = base.host
            first = base.path[0] if base.path else ""
            if not re.match(_DRIVE_FIRST, rest[1:]) and re.fullmatch("[A-Za-z]:", first):
                kept = [first]
        return _path(url, rest, kept)
    if base is None:
        return _path(url, rest)
    url.host = base.host
    if re.match(_DRIVE_FIRST, rest):
        return _path(url, rest)
    return _from_folder(url, rest, base)


def _file_host(url: Parts, rest: str) -> Parts:
    end = re.search(r"[/\\?#]", rest)
    host = rest[: end.start()] if end else rest
    if re.fullmatch(_DRIVE, host):
        return _path(url, rest)
    if host:
        url.host = parse_host(host, is_special=True)
        url.host = "" if url.host == "localhost" else url.host
    return _path(url, rest[len(host) :])


def _authority(url: Parts, rest: str) -> Parts:
    end = re.search(r"[/\\?#]" if url.is_special else "[/?#]", rest)
    authority = rest[: end.start()] if end else rest
    user, at, host = authority.rpartition("@")
    if at:
        name, _, password = user.partition(":")
        url.username, url.password = encoded(name, USERINFO), encoded(password, USERINFO)
    if at and not host:
        raise InvalidUrlError
    set_host(url, host)
    return _path(url, rest[len(authority) :])


def set_host(url: Parts, text: str) -> None:
    """Set host and port from text such as ``host:8080``."""
    colon = text.rfind(":")
    if colon < text.rfind("]"):
        colon = -1
    host, port = (text, "") if colon < 0 else (text[:colon], text[colon + 1 :])
    if ":" in host and not host.startswith("["):
        raise InvalidUrlError
    if not host and (url.is_special or colon >= 0):
        raise InvalidUrlError
    url.host = parse_host(host, is_special=url.is_special) if host else ""
    url.port = parse_port(url, port)


def parse_port(url: Parts, text: str) -> int | None:
    """Return the port; None if it is absent or the scheme's own."""
    if not text:
        return None
    if not re.fullmatch("[0-9]+", text) or int(text) > 65_535:
        raise InvalidUrlError
    return None if int(text) == PORTS.get(url.scheme) else int(text)


def _path(url: Parts, rest: str, before: list[str] | None = None) -> Parts:
    path, query, fragment = divided(rest)
    url.path = parse_path(url, path, before)
    return _ended(url, query, fragment)


def parse_path(url: Parts, text: str, before: list[str] | None = None) -> list[str]:
    """Return the segments of a path, after those of ``before``."""
    path = list(before or [])
    if not text and not url.is_special:
        return path
    segments = re.split(r"[/\\]" if url.is_special else "/", text)
    if text and not segments[0]:
        del segments[0]
    for at, segment in enumerate(segments, 1):
        is_last = at == len(segments)
        if segment.lower() in _DOUBLE_DOTS:
            is_drive = url.scheme == "file" and len(path) == 1 and re.fullmatch(_DRIVE, path[0])
            if path and not is_drive:
                path.pop()
            path += [""] if is_last else []
        elif segment.lower() in _SINGLE_DOTS:
            path += [""] if is_last else []
        elif url.scheme == "file" and not path and re.fullmatch(_DRIVE, segment):
            path.append(f"{segment[0]}:")
        else:
            path.append(encoded(segment, PATH))
    return path


def divided(text: str) -> tuple[str, str | None, str | None]:
    """Return path, query and fragment of the end of a URL."""
    rest, hash_sign, fragment = text.partition("#")
    path, question_mark, query = rest.partition("?")
    return path, query if question_mark else None, fragment if hash_sign else None


def _ended(url: Parts, query: str | None, fragment: str | None) -> Parts:
    if query is not None:
        url.query = encoded(query, SPECIAL_QUERY if url.is_special else QUERY)
    if fragment is not None:
        url.fragment = encoded(fragment, FRAGMENT)
    return url
