"""Parts of JavaScript's global scope that edgesim lacks: importable, an error when used.

A Worker may import them for a path that is not taken here.
"""

from __future__ import annotations

from typing import Any, NoReturn

from pyodide.ffi import JsProxy

_REASONS = {
    "EventSource": "read the body of a response of `fetch`",
    "HTMLRewriter": "parse the text with html.parser, or a vendored package",
    "MessageChannel": "use asyncio",
    "WebSocket": "edgesim has no WebSockets",
    "WebSocketPair": "edgesim has no WebSockets",
    "WebSocketRequestResponsePair": "edgesim has no WebSockets",
    "caches": "edgesim has no Cache API; keep values in KV",
}


class Absent(JsProxy):
    """A name of JavaScript; NotImplementedError, which says why, for each use of it."""

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "_name", name)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError(f"js.{self._name} is not in edgesim: {_REASONS[self._name]}")

    __call__ = _refuse
    new = _refuse
    __iter__ = __setattr__ = _refuse

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        self._refuse()

    def __repr__(self) -> str:
        return f"<js.{self._name}, which is not in edgesim>"


ABSENT = {name: Absent(name) for name in _REASONS}
"""The names and what stands for them."""
