"""``TextEncoder`` and ``TextDecoder``."""

from __future__ import annotations

import codecs
from typing import Any

from pyodide._typed_arrays import JsTypedArray, Uint8Array
from pyodide.ffi import JsBuffer, JsException, JsProxy

from js._search_params import to_text
from js._text import utf8

_BOM = "\ufeff"
_LABELS = {
    "big5": "big5 big5-hkscs cn-big5 csbig5 x-x-big5",
    "euc-jp": "cseucpkdfmtjapanese euc-jp x-euc-jp",
    "euc-kr": "cseuckr csksc56011987 euc-kr iso-ir-149 korean ks_c_5601-1987 windows-949",
    "gb18030": "gb18030",
    "gbk": "chinese csgb2312 csiso58gb231280 gb2312 gb_2312 gb_2312-80 gbk iso-ir-58 x-gbk",
    "iso-8859-2": "csisolatin2 iso-8859-2 iso8859-2 iso_8859-2 l2 latin2",
    "iso-8859-15": "csisolatin9 iso-8859-15 iso8859-15 iso_8859-15 l9",
    "koi8-r": "cskoi8r koi koi8 koi8-r koi8_r",
    "shift_jis": "csshiftjis ms932 ms_kanji shift-jis shift_jis sjis windows-31j x-sjis",
    "utf-16be": "unicodefffe utf-16be",
    "utf-16le": "csunicode iso-10646-ucs-2 ucs-2 unicode unicodefeff utf-16 utf-16le",
    "utf-8": "unicode-1-1-utf-8 unicode11utf8 unicode20utf8 utf-8 utf8 x-unicode20utf8",
    "windows-1250": "cp1250 windows-1250 x-cp1250",
    "windows-1251": "cp1251 windows-1251 x-cp1251",
    "windows-1252": "ascii cp1252 iso-8859-1 iso8859-1 iso_8859-1 l1 latin1 us-ascii windows-1252",
}
"""Name of an encoding -> its labels; a part of the Encoding standard's table."""
_NAMES = {label: name for name, labels in _LABELS.items() for label in labels.split()}
_CODECS = {"euc-kr": "cp949", "gbk": "gb18030", "shift_jis": "cp932"}
"""Encodings that are Python codecs of other names."""


class TextEncoder(JsProxy):
    """Encodes text as UTF-8."""

    def __init__(self) -> None:
        super().__init__({})

    @property
    def encoding(self) -> str:
        """Always "utf-8"."""
        return "utf-8"

    def encode(self, text: Any = None) -> Uint8Array:
        """Return the bytes of a text."""
        return Uint8Array(b"" if text is None else utf8(to_text(text)))

    def encodeInto(self, text: Any, target: JsTypedArray) -> JsProxy:
        """Write as many whole characters as there is room for; return ``read`` and ``written``."""
        if not isinstance(target, Uint8Array):
            raise JsException("TypeError", "encodeInto requires a Uint8Array.")
        read = written = 0
        for character in to_text(text):
            encoded = utf8(character)
            if written + len(encoded) > len(target):
                break
            target._view[written : written + len(encoded)] = encoded
            written += len(encoded)
            read += 2 if ord(character) > 0xFFFF else 1  # counted in UTF-16 units
        return JsProxy({"read": read, "written": written})

    def __repr__(self) -> str:
        return "[object TextEncoder]"


class TextDecoder(JsProxy):
    """Decodes bytes, which may come in parts."""

    __setattr__ = object.__setattr__  # type: ignore[assignment] # plain Python attributes

    def __init__(self, label: Any = "utf-8", options: Any = None, **more: Any) -> None:
        given = dict(options._value if isinstance(options, JsProxy) else options or {}) | more
        text = "utf-8" if label is None else to_text(label)
        name = _NAMES.get(text.strip("\t\n\f\r ").lower())
        if name is None:
            raise JsException("RangeError", f'The "{text}" encoding is not supported in edgesim')
        self._value = {}
        self._name = name
        self._fatal, self._ignore_bom = bool(given.get("fatal")), bool(given.get("ignoreBOM"))
        self._restart()

    def _restart(self) -> None:
        codec = "latin-1" if self._name == "windows-1252" else _CODECS.get(self._name, self._name)
        kind = codecs.getincrementaldecoder(codec)
        self._decoder = kind("strict" if self._fatal else "replace")
        self._is_start = True

    @property
    def encoding(self) -> str:
        """Name of the encoding."""
        return self._name

    @property
    def fatal(self) -> bool:
        """True if invalid bytes are an error."""
        return self._fatal

    @property
    def ignoreBOM(self) -> bool:
        """True if a byte order mark is kept as a character."""
        return self._ignore_bom

    def decode(self, data: Any = None, options: Any = None, **more: Any) -> str:
        """Return the text of the bytes; with ``stream=True`` a character may end in later bytes."""
        given = dict(options._value if isinstance(options, JsProxy) else options or {}) | more
        if data is not None and not isinstance(data, JsBuffer):
            message = "decode requires an ArrayBuffer, a typed array or a DataView; use to_js"
            raise JsException("TypeError", message)
        goes_on = bool(given.get("stream"))
        try:
            text = self._decoder.decode(b"" if data is None else data.to_bytes(), not goes_on)
        except UnicodeDecodeError:
            self._restart()
            message = f"The encoded data was not valid for encoding {self._name}"
            raise JsException("TypeError", message) from None
        if self._name == "windows-1252":
            text = _windows(text)
        if text and self._is_start:
            self._is_start = False
            text = text if self._ignore_bom else text.removeprefix(_BOM)
        if not goes_on:
            self._restart()
        return text

    def __repr__(self) -> str:
        return "[object TextDecoder]"


def _windows(text: str) -> str:
    """Return text of latin-1 with the characters that windows-1252 has in place of controls."""
    controls = {ord(each) for each in text if "\x80" <= each < "\xa0"}
    found = {each: bytes([each]).decode("cp1252", "ignore") or each for each in controls}
    return text.translate(found)
