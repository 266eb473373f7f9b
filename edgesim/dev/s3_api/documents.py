"""XML of the S3 API: documents in requests, read as they arrive, and those of responses."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from xml.parsers.expat import ExpatError, ParserCreate
from xml.sax.saxutils import escape

from edgesim.dev.s3_api.refusals import S3ApiError, malformed_xml

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
DOCUMENT_BYTES_MAX = 8 << 20
"""Maximum of a request's document: 1,000 keys of 1 KiB, each character escaped."""
ITEMS_MAX = 10_000
_TEXT_CHARACTERS_MAX = 8_192
_DEPTH_MAX = 3
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0d\x0e-\x1f\ufffe\uffff]")

Element = str | int | bool | Mapping[str, object] | Iterable[object]
"""Content of an element: a text, child elements by name, or several elements of that name."""


class Document:
    """A document of two levels: fields of the root, and items with fields of their own."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.items: list[dict[str, str]] = []


async def read_document(chunks: AsyncIterator[bytes], root: str, item: str) -> Document:
    """Parse a request's body; MalformedXML for another document.

    A DOCTYPE is refused, and so every entity that the document could declare.
    """
    reader = _DocumentReader(root, item)
    parser = ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _refuse
    parser.EntityDeclHandler = _refuse
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    size = 0
    try:
        async for chunk in chunks:
            size += len(chunk)
            if size > DOCUMENT_BYTES_MAX:
                raise malformed_xml()
            parser.Parse(chunk, False)
        parser.Parse(b"", True)
    except (ExpatError, ValueError):  # ValueError: an encoding that Python does not know
        raise malformed_xml() from None
    except LookupError:
        raise malformed_xml() from None
    return reader.document


class _DocumentReader:
    """The parser's events, collected."""

    def __init__(self, root: str, item: str) -> None:
        self.document = Document()
        self._names = (root, item)
        self._path: list[str] = []
        self._text: list[str] = []
        self._characters = 0

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        name = name.rpartition(":")[2]
        self._path.append(name)
        if len(self._path) > _DEPTH_MAX or self._path[0] != self._names[0]:
            raise malformed_xml()
        if len(self._path) == 2 and name == self._names[1]:
            if len(self.document.items) == ITEMS_MAX:
                raise malformed_xml()
            self.document.items.append({})
        self._text.clear()
        self._characters = 0

    def text(self, data: str) -> None:
        self._characters += len(data)
        if self._characters > _TEXT_CHARACTERS_MAX:
            raise malformed_xml()
        self._text.append(data)

    def end(self, name: str) -> None:
        match self._path:
            case [_, field] if field != self._names[1]:
                self.document.fields[field] = "".join(self._text)
            case [_, parent, field] if parent == self._names[1]:
                self.document.items[-1][field] = "".join(self._text)
        self._path.pop()
        self._text.clear()


def _refuse(*_: object) -> None:
    raise malformed_xml()


def document(root: str, content: Element) -> bytes:
    """A response's document."""
    return f'{_HEAD}<{root} xmlns="{NAMESPACE}">{_inner(content)}</{root}>'.encode()


def error_document(error: S3ApiError) -> bytes:
    """The document of an error, which has no namespace."""
    content = {"Code": error.code, "Message": str(error), **error.details}
    return f"{_HEAD}<Error>{_inner(content)}</Error>".encode()


def _inner(content: object) -> str:
    if isinstance(content, Mapping):
        return "".join(_elements(name, value) for name, value in content.items())
    if isinstance(content, bool):
        return str(content).lower()
    text = escape(str(content), {'"': "&quot;", "'": "&apos;"})
    return _CONTROLS.sub(lambda found: f"&#{ord(found[0])};", text)


def _elements(name: str, value: object) -> str:
    if isinstance(value, list):
        return "".join(_elements(name, each) for each in value)
    return "" if value is None else f"<{name}>{_inner(value)}</{name}>"
