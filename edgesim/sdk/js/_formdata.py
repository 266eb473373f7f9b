"""``FormData`` and its encodings: writes multipart/form-data, reads that and urlencoded forms.

The standard library's email parser is not used: it changes line ends inside binary parts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from email.message import Message
from typing import Any

from pyodide.ffi import JsBuffer, JsException, JsProxy, jsnull

from js._blob import Blob, File
from js._text import utf8

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{0,2})")
_DISPOSITION = re.compile(
    r"^content-disposition:[ \t]*form-data([^\r\n]*)", re.IGNORECASE | re.MULTILINE
)
_PARAMETER = re.compile(r';[ \t]*([a-z]+)="((?:\\.|[^"\\])*)"', re.IGNORECASE)
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_CONTENT_TYPE = re.compile(r"^content-type:[ \t]*([^\r\n]*)", re.IGNORECASE | re.MULTILINE)


class FormData(JsProxy):
    """Ordered names and values; a value is a string or a File."""

    _value: list[tuple[str, Any]]

    def __init__(self) -> None:
        self._value = []

    def get(self, name: str) -> Any:
        """Return the first value of that name; null if there is none."""
        return next((value for each, value in self._value if each == name), jsnull)

    def getAll(self, name: str) -> list[Any]:
        """Return all values of that name."""
        return [value for each, value in self._value if each == name]

    def has(self, name: str) -> bool:
        """Return True if there is a value of that name."""
        return any(each == name for each, _ in self._value)

    def append(self, name: str, value: Any, filename: str | None = None) -> None:
        """Append a value; a string cannot have a filename (JsException, a TypeError)."""
        self._value.append((str(name), _entry(value, filename)))

    def set(self, name: str, value: Any, filename: str | None = None) -> None:
        """Replace all values of that name by this one, at the position of the first."""
        entry = (str(name), _entry(value, filename))
        at = next((i for i, (each, _) in enumerate(self._value) if each == name), None)
        if at is None:
            self._value.append(entry)
            return
        rest = [pair for pair in self._value[at + 1 :] if pair[0] != name]
        self._value[at:] = [entry, *rest]

    def delete(self, name: str) -> None:
        """Remove all values of that name."""
        self._value = [pair for pair in self._value if pair[0] != name]

    def keys(self) -> Iterator[str]:
        """Iterate over the names, including repeated ones."""
        return (name for name, _ in self._value)

    def values(self) -> Iterator[Any]:
        """Iterate over the values."""
        return (value for _, value in self._value)

    def entries(self) -> Iterator[tuple[str, Any]]:
        """Iterate over (name, value)."""
        return iter(list(self._value))

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return self.entries()

    def to_py(self, *, depth: int = -1, default_converter: Any = None) -> FormData:
        """Return the form itself: there is no matching Python type."""
        return self

    def _to_wire(self) -> Any:
        raise TypeError("FormData cannot be sent over RPC in edgesim; send it as a body.")

    def __repr__(self) -> str:
        return "[object FormData]"


def _entry(value: Any, filename: str | None) -> Any:
    if isinstance(value, Blob):
        name = filename or (value.name if isinstance(value, File) else "blob")
        if isinstance(value, File) and value.name == name:
            return value
        return File([value], name, type=value.type)
    if filename is not None:
        raise JsException("TypeError", "a filename is for a Blob or a File, not for a string")
    return str(value)


def encode(form: FormData) -> tuple[bytes, str]:
    """Encode a form as multipart; return the body and its content type."""
    boundary = "----edgesim" + os.urandom(12).hex()
    parts = []
    for name, value in form.entries():
        head = f'Content-Disposition: form-data; name="{_quoted(name)}"'
        if isinstance(value, File):
            kind = value.type or "application/octet-stream"
            head += f'; filename="{_quoted(value.name)}"\r\nContent-Type: {kind}'
            content = value._value
        else:
            content = utf8(value)  # line ends stay, as in workerd
        parts.append(b"--" + boundary.encode() + b"\r\n" + utf8(head) + b"\r\n\r\n" + content)
    end = b"--" + boundary.encode() + b"--\r\n"
    body = b"".join(part + b"\r\n" for part in parts) + end
    return body, f"multipart/form-data; boundary={boundary}"


def _quoted(text: str) -> str:
    return text.replace("\n", "%0A").replace("\r", "%0D").replace('"', "%22")


def _unescaped(text: bytes) -> str:
    """Decode an urlencoded name or value.

    As in workerd, one digit is enough for an escape, and a percent sign without any is dropped.
    """
    found = _ESCAPE.sub(
        lambda match: bytes([int(match[1], 16)]) if match[1] else b"", text.replace(b"+", b" ")
    )
    return found.decode("utf-8", "replace")


def decode(body: bytes, content_type: str) -> FormData:
    """Parse the form in a body; JsException (a TypeError) if the body is not a form."""
    header = Message()
    header["content-type"] = content_type
    kind = header.get_content_type() if content_type else ""
    if kind == "application/x-www-form-urlencoded":
        form = FormData()
        for pair in filter(None, body.split(b"&")):
            name, _, value = pair.partition(b"=")
            form.append(_unescaped(name), _unescaped(value))
        return form
    boundary = header.get_param("boundary")
    if kind != "multipart/form-data" or not isinstance(boundary, str):
        raise JsException("TypeError", f"no form in a body of content type {content_type!r}")
    return _decode_multipart(body, boundary.encode())


def _decode_multipart(body: bytes, boundary: bytes) -> FormData:
    """Parse multipart like workerd: lines end with CRLF or LF, names are quoted, % stays."""
    form = FormData()
    pieces = re.split(rb"\r?\n--" + re.escape(boundary), b"\n" + body)
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise JsException("TypeError", "the multipart body has no end")
    for piece in pieces[1:-1]:
        blank = _BLANK_LINE.search(piece)
        head = piece[: blank.start()].decode("utf-8", "replace") if blank else ""
        named = _parameters(head)
        if blank is None or "name" not in named:
            raise JsException("TypeError", "a part of the multipart body has no name")
        content = piece[blank.end() :]
        if named.get("filename"):
            kind = _CONTENT_TYPE.search(head)
            file = File([JsBuffer(content)], named["filename"], type=kind[1] if kind else None)
            form.append(named["name"], file)
        else:
            form.append(named["name"], content.decode("utf-8", "replace"))
    return form


def _parameters(head: str) -> dict[str, str]:
    found = _DISPOSITION.search(head)
    pairs = _PARAMETER.findall(found[1]) if found else []
    return {name.lower(): re.sub(r"\\(.)", r"\1", value) for name, value in pairs}
