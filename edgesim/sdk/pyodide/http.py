"""``pyodide.http``: the response that the SDK's own is built on, and the exceptions of fetch."""

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
    """What ``raise_for_status`` raises; ``status``, ``status_text``, ``url``."""

    def __init__(self, status: int, status_text: str, url: str) -> None:
        self.status = status
        self.status_text = status_text
        self.url = url
        kind = {4: "Client Error", 5: "Server Error"}.get(
            status // 100, "Invalid error code not between 400 and 599"
        )
        super().__init__(f"{status} {kind}: {status_text} for url: {url}")


class BodyUsedError(OSError):
    """The body has been read already."""

    def __init__(self, *args: Any) -> None:
        super().__init__("Response body is already used")


class AbortError(OSError):
    """The request never got an answer; ``reason`` is what was thrown, or its message."""

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
    """A response around the raw one; the SDK's adds to it, but ``clone()`` gives this one."""

    def __init__(
        self, request: Any, js_response: Any, abort_controller: Any = None, abort_signal: Any = None
    ) -> None:
        self.js_response = js_response

    @property
    def body_used(self) -> bool:
        """Whether the body has been read or passed on."""
        used: bool = self.js_response.bodyUsed
        return used

    @property
    def headers(self) -> Any:
        """Headers as a dict, names in lower case."""
        return dict(self.js_response.headers.entries())

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        ok: bool = self.js_response.ok
        return ok

    @property
    def redirected(self) -> bool:
        """Whether a redirect was followed."""
        redirected: bool = self.js_response.redirected
        return redirected

    @property
    def status(self) -> int:
        """The status."""
        status: int = self.js_response.status
        return status

    @property
    def status_text(self) -> str:
        """The reason phrase."""
        text: str = self.js_response.statusText
        return text

    @property
    def type(self) -> str:
        """As JavaScript has it: "default"."""
        kind: str = self.js_response.type
        return kind

    @property
    def url(self) -> str:
        """Where it came from; "" for a handler's own."""
        url: str = self.js_response.url
        return url

    def _raise_if_failed(self) -> None:
        if self.body_used:
            raise BodyUsedError

    def raise_for_status(self) -> None:
        """HttpStatusError for a 4xx or 5xx."""
        if 400 <= self.status < 600:
            raise HttpStatusError(self.status, self.status_text, self.url)

    def clone(self) -> FetchResponse:
        """Another of the same, of this class: a handler cannot return it, as on the platform."""
        self._raise_if_failed()
        return FetchResponse(self.url, self.js_response.clone())

    @_aborting
    async def buffer(self) -> JsBuffer:
        """The whole body, raw."""
        self._raise_if_failed()
        buffer: JsBuffer = await self.js_response.arrayBuffer()
        return buffer

    @_aborting
    async def text(self) -> str:
        """The whole body as UTF-8, broken bytes replaced."""
        self._raise_if_failed()
        text: str = await self.js_response.text()
        return text

    async def string(self) -> str:
        """The old name of ``text``."""
        return await self.text()

    async def json(self, **kwargs: Any) -> Any:
        """The whole body parsed by ``json.loads``."""
        self._raise_if_failed()
        return json.loads(await self.string(), **kwargs)

    async def memoryview(self) -> builtins.memoryview:
        """The whole body."""
        return (await self.buffer()).to_memoryview()

    async def bytes(self) -> builtins.bytes:
        """The whole body."""
        return (await self.buffer()).to_bytes()

    def abort(self, reason: Any = None) -> None:
        """ValueError: nothing here can be aborted by its response."""
        raise ValueError("abort_controller is not set")


async def pyfetch(
    request: Any, /, *, signal: Any = None, fetcher: Any = None, **kwargs: Any
) -> Any:
    """The fetch below ``workers.fetch``; ``fetcher`` is asked in place of the open internet."""
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
