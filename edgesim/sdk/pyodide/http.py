"""``pyodide.http``: base class of the SDK's response, and the exceptions of fetch."""

from __future__ import annotations

import builtins
import json
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from pyodide.ffi import JsBuffer, JsException

P = ParamSpec("P")
T = TypeVar("T")


class HttpStatusError(OSError):
    """Raised by ``raise_for_status``; has ``status``, ``status_text`` and ``url``."""

    def __init__(self, status: int, status_text: str, url: str) -> None:
        self.status = status
        self.status_text = status_text
        self.url = url
        kind = {4: "Client Error", 5: "Server Error"}.get(
            status // 100, "Invalid error code not between 400 and 599"
        )
        super().__init__(f"{status} {kind}: {status_text} for url: {url}")


class BodyUsedError(OSError):
    """Raised if the body has already been read."""

    def __init__(self, *args: Any) -> None:
        super().__init__("Response body is already used")


class AbortError(OSError):
    """Raised if the request got no response; ``reason`` is the exception, or its message."""

    def __init__(self, reason: Any) -> None:
        super().__init__(getattr(reason, "message", reason))


def _aborting(method: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    @wraps(method)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await method(*args, **kwargs)
        except JsException as error:
            raise AbortError(error) from None

    return wrapper


class FetchResponse:
    """Wrapper of a raw response.  The SDK's response extends it; ``clone()`` returns this class."""

    def __init__(
        self, request: Any, js_response: Any, abort_controller: Any = None, abort_signal: Any = None
    ) -> None:
        self.js_response = js_response

    @property
    def body_used(self) -> bool:
        """True if the body has been read or passed on."""
        used: bool = self.js_response.bodyUsed
        return used

    @property
    def headers(self) -> Any:
        """Headers as a dict with lower-case names."""
        return dict(self.js_response.headers.entries())

    @property
    def ok(self) -> bool:
        """True if the status is 2xx."""
        ok: bool = self.js_response.ok
        return ok

    @property
    def redirected(self) -> bool:
        """True if a redirect was followed."""
        redirected: bool = self.js_response.redirected
        return redirected

    @property
    def status(self) -> int:
        """HTTP status code."""
        status: int = self.js_response.status
        return status

    @property
    def status_text(self) -> str:
        """The reason phrase."""
        text: str = self.js_response.statusText
        return text

    @property
    def type(self) -> str:
        """JavaScript's response type; always "default"."""
        kind: str = self.js_response.type
        return kind

    @property
    def url(self) -> str:
        """URL of the response; "" for one made by a handler."""
        url: str = self.js_response.url
        return url

    def _raise_if_failed(self) -> None:
        if self.body_used:
            raise BodyUsedError

    def raise_for_status(self) -> None:
        """Raise HttpStatusError for a 4xx or 5xx status."""
        if 400 <= self.status < 600:
            raise HttpStatusError(self.status, self.status_text, self.url)

    def clone(self) -> FetchResponse:
        """Return a copy of this class, which a handler cannot return, as on the platform."""
        self._raise_if_failed()
        return FetchResponse(self.url, self.js_response.clone())

    @_aborting
    async def buffer(self) -> JsBuffer:
        """Read the whole body, raw."""
        self._raise_if_failed()
        buffer: JsBuffer = await self.js_response.arrayBuffer()
        return buffer

    @_aborting
    async def text(self) -> str:
        """Read the whole body as UTF-8; invalid bytes are replaced."""
        self._raise_if_failed()
        text: str = await self.js_response.text()
        return text

    async def string(self) -> str:
        """Read the whole body as text; older name of ``text``."""
        return await self.text()

    async def json(self, **kwargs: Any) -> Any:
        """Read the whole body and parse it with ``json.loads``."""
        self._raise_if_failed()
        return json.loads(await self.string(), **kwargs)

    async def memoryview(self) -> builtins.memoryview:
        """Read the whole body."""
        return (await self.buffer()).to_memoryview()

    async def bytes(self) -> builtins.bytes:
        """Read the whole body."""
        return (await self.buffer()).to_bytes()

    def abort(self, reason: Any = None) -> None:
        """Raise ValueError: a request cannot be aborted through its response here."""
        raise ValueError("abort_controller is not set")


async def pyfetch(
    request: Any, /, *, signal: Any = None, fetcher: Any = None, **kwargs: Any
) -> Any:
    """Send a request for ``workers.fetch``; ``fetcher`` replaces the global ``fetch``.

    Raises AbortError if there is no response.
    """
    import js

    raw = js.Request(request, **kwargs) if kwargs or isinstance(request, str) else request
    try:
        answer = await (fetcher or js.fetch)(raw)
    except JsException as error:
        raise AbortError(error) from None
    return FetchResponse(raw, getattr(answer, "js_object", answer))


def __getattr__(name: str) -> Any:
    if name in {"open_url", "pyxhr"}:
        raise ImportError(f"pyodide.http.{name} is in Pyodide but not in edgesim")
    raise AttributeError(f"module 'pyodide.http' has no attribute {name!r}")
