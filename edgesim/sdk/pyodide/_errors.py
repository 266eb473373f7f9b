"""Exceptions of calls between Python and JavaScript."""

from __future__ import annotations


class ConversionError(Exception):
    """Raised for a value that cannot be converted."""


class JsException(Exception):
    """Exception thrown by JavaScript; ``str()`` is "name: message"."""

    def __init__(self, name: str, message: str = "", stack: str = "") -> None:
        super().__init__(f"{name}: {message}")
        self.name = name
        self.message = message
        self.stack = stack
