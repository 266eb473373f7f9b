"""``URL``: a parsed URL whose parts can be read and set."""

from __future__ import annotations

import re
from typing import Any

from pyodide.ffi import JsException, JsProxy, jsnull

from js._search_params import URLSearchParams, decoded, to_text
from js._url_host import InvalidUrlError, encoded, parse_host
from js._url_parser import (
    FRAGMENT,
    PORTS,
    QUERY,
    SPECIAL_QUERY,
    USERINFO,
    Parts,
    parse_path,
    parse_port,
)
from js._url_parser import parse as parse_url

_SCHEME = "[a-z][a-z0-9+.-]*"
_HOST = r"(?:\[[^\]]*(?:\]|$)|[^:\[])*"
"""The host before a port."""


class URL(JsProxy):
    """``new URL(url, base)``; JsException (a TypeError) for text that is no URL."""

    __setattr__ = object.__setattr__  # type: ignore[assignment] # plain Python attributes

    def __init__(self, url: Any, base: Any = None) -> None:
        self._value = {}
        self._parts = _parsed(url, base)
        self._params: URLSearchParams | None = None

    @staticmethod
    def canParse(url: Any, base: Any = None) -> bool:
        """Return True if the text is a URL, relative to the base if there is one."""
        return URL.parse(url, base) is not jsnull

    @staticmethod
    def parse(url: Any, base: Any = None) -> Any:
        """Return the URL of the text; null if it is none."""
        try:
            return URL(url, base)
        except JsException:
            return jsnull

    @property
    def href(self) -> str:
        """The whole URL."""
        return self._parts.href

    @href.setter
    def href(self, value: Any) -> None:
        self._parts = _parsed(value, None)
        self._read_query()

    @property
    def origin(self) -> str:
        """Scheme, host and port; "null" for other URLs than those of servers."""
        if not self._parts.is_special or self._parts.scheme == "file":
            return "null"
        return f"{self._parts.scheme}://{self._parts.authority}"

    @property
    def protocol(self) -> str:
        """The scheme with its colon."""
        return f"{self._parts.scheme}:"

    @protocol.setter
    def protocol(self, value: Any) -> None:
        wanted = to_text(value).partition(":")[0].lower()
        parts = self._parts
        if not re.fullmatch(_SCHEME, wanted) or (wanted in PORTS) is not parts.is_special:
            return
        has_owner = parts.username or parts.password or parts.port is not None
        if (wanted == "file" and has_owner) or (parts.scheme == "file" and not parts.host):
            return
        port = None if parts.port == PORTS.get(wanted) else parts.port
        self._parts = parts.replaced(scheme=wanted, port=port)

    @property
    def username(self) -> str:
        """The user name."""
        return self._parts.username

    @username.setter
    def username(self, value: Any) -> None:
        if self._parts.host:
            self._parts.username = encoded(to_text(value), USERINFO)

    @property
    def password(self) -> str:
        """The password."""
        return self._parts.password

    @password.setter
    def password(self, value: Any) -> None:
        if self._parts.host:
            self._parts.password = encoded(to_text(value), USERINFO)

    @property
    def host(self) -> str:
        """Host and port."""
        return self._parts.authority

    @host.setter
    def host(self, value: Any) -> None:
        self._set_host(to_text(value), has_port=True)

    @property
    def hostname(self) -> str:
        """The host."""
        return self._parts.host or ""

    @hostname.setter
    def hostname(self, value: Any) -> None:
        self._set_host(to_text(value), has_port=False)

    def _set_host(self, text: str, *, has_port: bool) -> None:
        parts = self._parts
        if isinstance(parts.path, str):
            return
        head = re.split(r"[/?#\\]" if parts.is_special else "[/?#]", text)[0]
        found = re.match(_HOST, head) if parts.scheme != "file" else None
        host = found[0] if found else head
        rest = head[len(host) :]
        if (rest and not (has_port and host)) or (not host and self._needs_host()):
            return
        try:
            host = parse_host(host, is_special=parts.is_special) if host else ""
        except InvalidUrlError:
            return
        parts.host = "" if (parts.scheme, host) == ("file", "localhost") else host
        if rest[1:2].isdecimal():
            self.port = rest[1:]

    def _needs_host(self) -> bool:
        parts = self._parts
        has_owner = parts.username or parts.password or parts.port is not None
        return bool(has_owner) or (parts.is_special and parts.scheme != "file")

    @property
    def port(self) -> str:
        """The port; "" if it is the scheme's own."""
        return "" if self._parts.port is None else str(self._parts.port)

    @port.setter
    def port(self, value: Any) -> None:
        text = to_text(value)
        digits = text[: len(text) - len(text.lstrip("0123456789"))]
        if not self._parts.host or self._parts.scheme == "file" or (text and not digits):
            return
        try:
            self._parts.port = parse_port(self._parts, digits)
        except InvalidUrlError:
            return

    @property
    def pathname(self) -> str:
        """The path."""
        return self._parts.pathname

    @pathname.setter
    def pathname(self, value: Any) -> None:
        if isinstance(self._parts.path, list):
            path = to_text(value).replace("?", "%3F").replace("#", "%23")
            found = parse_path(self._parts, path)
            self._parts.path = found or ([""] if self._parts.host is None else [])

    @property
    def search(self) -> str:
        """The query with its question mark; "" if there is none."""
        return f"?{self._parts.query}" if self._parts.query else ""

    @search.setter
    def search(self, value: Any) -> None:
        text = to_text(value)
        kind = SPECIAL_QUERY if self._parts.is_special else QUERY
        self._parts.query = encoded(text.removeprefix("?"), kind) if text else None
        self._read_query()

    @property
    def searchParams(self) -> URLSearchParams:
        """Names and values of the query; a change of them changes the URL."""
        if self._params is None:
            self._params = URLSearchParams()
            self._read_query()
            self._params._changed = self._write_query
        return self._params

    @property
    def hash(self) -> str:
        """The fragment with its number sign; "" if there is none."""
        return f"#{self._parts.fragment}" if self._parts.fragment else ""

    @hash.setter
    def hash(self, value: Any) -> None:
        text = to_text(value)
        self._parts.fragment = encoded(text.removeprefix("#"), FRAGMENT) if text else None

    def toString(self) -> str:
        """Return the whole URL."""
        return self.href

    toJSON = toString
    __repr__ = toString

    def to_py(self, *, depth: int = -1, default_converter: Any = None) -> URL:
        """Return the URL itself: there is no matching Python type."""
        return self

    def _read_query(self) -> None:
        if self._params is not None:
            self._params._value = list(decoded(self._parts.query or ""))

    def _write_query(self) -> None:
        assert self._params is not None
        self._parts.query = self._params.toString() or None

    def _to_wire(self) -> Any:
        raise TypeError("a URL cannot be sent over RPC; send its text.")


def _parsed(url: Any, base: Any) -> Parts:
    try:
        return parse_url(to_text(url), None if base is None else parse_url(to_text(base)))
    except InvalidUrlError:
        raise JsException("TypeError", f"Invalid URL: {to_text(url)}") from None
