"""``Request``, ``Response`` and ``fetch``: the web classes, implemented over the wire.

Errors are JsExceptions with JavaScript's error class, as when Python calls JavaScript.
"""

from __future__ import annotations

import builtins
import json
import re
from http import HTTPStatus
from typing import Any

from pyodide._typed_arrays import Uint8Array
from pyodide.ffi import JsBuffer, JsException, JsProxy, jsnull, to_js, to_proxy
from workers._runtime import invocation

from js._blob import Blob
from js._formdata import FormData, decode, encode
from js._headers import Headers
from js._search_params import URLSearchParams
from js._stream import USED, ReadableStream
from js._text import text_of, utf8
from js._url_host import InvalidUrlError
from js._url_parser import parse

_NORMALISED = {"DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"}
_METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NULL_BODY = {101, 204, 205, 304}
_REDIRECTS = {301, 302, 303, 307, 308}
_PHRASES = {int(status): status.phrase for status in HTTPStatus}


class Body(JsProxy):
    """Common base of Request and Response: headers, and a body that can be read once."""

    headers: Headers
    _stream: ReadableStream | None
    __setattr__ = object.__setattr__  # type: ignore[assignment] # plain Python attributes

    @property
    def body(self) -> Any:
        """The body as a stream; null if there is no body."""
        return jsnull if self._stream is None else self._stream

    @property
    def bodyUsed(self) -> bool:
        """True if the body has been read or passed on."""
        return self._stream is not None and self._stream.locked

    async def arrayBuffer(self) -> JsBuffer:
        """Read the whole body."""
        return JsBuffer(await self._read())

    async def bytes(self) -> Uint8Array:
        """Read the whole body."""
        return Uint8Array(await self._read())

    async def text(self) -> str:
        """Read the whole body as UTF-8; invalid bytes are replaced."""
        return text_of(await self._read())

    async def blob(self) -> Blob:
        """Read the whole body as a blob of the body's content type."""
        return Blob([JsBuffer(await self._read())], type=self._content_type())

    async def formData(self) -> FormData:
        """Read the form in the body; JsException (a TypeError) if it is not a form."""
        return decode(await self._read(), self._content_type())

    def to_py(self, *, depth: int = -1, default_converter: Any = None) -> Body:
        """Return the object itself: there is no matching Python type."""
        return self

    def _content_type(self) -> str:
        found = self.headers.get("content-type")
        return found if isinstance(found, str) else ""

    async def _read(self) -> builtins.bytes:
        if self._stream is None:
            return b""
        if self._stream.locked:
            raise JsException("TypeError", USED)
        return await self._stream._read_all()

    def _cloned(self) -> ReadableStream | None:
        if self.bodyUsed:
            raise JsException("TypeError", USED)
        return None if self._stream is None else self._stream._clone()

    async def _settle(self) -> None:
        """Read a body into memory that cannot be passed on as a handle."""
        if self._stream is not None and not self._stream.locked:
            await self._stream._settle()

    def _wire_body(self) -> Any:
        return b"" if self._stream is None else self._stream._to_wire()

    def _set_body(self, body: Any) -> None:
        """Set the body, and its content type if the headers have none."""
        content, kind = _extract(body)
        stream = content if isinstance(content, ReadableStream) else None
        if stream is not None and stream.locked:
            raise JsException("TypeError", "This ReadableStream is disturbed or locked.")
        self._stream = ReadableStream(content) if content is not None else None
        if stream is not None:
            self._stream = stream
        if kind and not self.headers.has("content-type"):
            self.headers.append("content-type", kind)


def _extract(body: Any) -> tuple[Any, str | None]:
    """Convert a body value to (bytes, stream or None, content type); TypeError for other types."""
    if body is None or body is jsnull:
        return None, None
    if isinstance(body, str):
        return utf8(body), "text/plain;charset=UTF-8"
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body), None
    if isinstance(body, JsBuffer):
        return body.to_bytes(), None
    if isinstance(body, Blob):
        return body._value, body.type or None
    if isinstance(body, FormData):
        return encode(body)
    if isinstance(body, URLSearchParams):
        return utf8(body.toString()), "application/x-www-form-urlencoded;charset=UTF-8"
    if isinstance(body, ReadableStream):
        return body, None
    raise TypeError(
        f"a body must be str, bytes, a form, a blob or a stream, not {type(body).__name__}; "
        "use json.dumps for JSON (the platform would send '[object Object]')"
    )


class Request(Body):
    """``new Request(input, init)``."""

    url: str
    method: str
    redirect: str
    _cf: dict[str, Any] | None

    def __init__(
        self,
        input: Any,
        init: Any = None,
        **options: Any,
    ) -> None:
        options = _options(init) | options
        original = input if isinstance(input, Request) else None
        self.url = original.url if original else normal_url(str(input))
        self.method = _method(options.get("method"), original)
        self.redirect = _redirect(options.get("redirect"), original)
        headers = options.get("headers")
        self.headers = Headers(original.headers if original and headers is None else headers)
        self._cf = options.get("cf") or (original._cf if original else None)
        body = options.get("body")
        if body is not None and self.method in {"GET", "HEAD"}:
            raise JsException("TypeError", "Request with a GET or HEAD method cannot have a body.")
        if body is None and original is not None:
            self._stream = original._handed_over()
        else:
            self._set_body(body)

    @classmethod
    def _of(cls, wire: dict[str, Any]) -> Request:
        """Return a request received over the wire."""
        request = cls.__new__(cls)
        request.url = wire["url"]
        request.method = wire["method"]
        request.redirect = "manual"
        request.headers = Headers._of(wire["headers"])
        request._cf = wire["cf"]
        has_body = wire["method"] not in {"GET", "HEAD"} or wire["body"]
        request._stream = ReadableStream(wire["body"]) if has_body else None
        return request

    @property
    def cf(self) -> Any:
        """The platform's metadata of the request and its client."""
        return to_proxy(self._cf) if self._cf else None

    @property
    def cache(self) -> str:
        """The cache mode; always "default"."""
        return "default"

    @property
    def integrity(self) -> str:
        """The subresource integrity; always "", never checked."""
        return ""

    @property
    def keepalive(self) -> bool:
        """Always False."""
        return False

    def clone(self) -> Request:
        """Return a copy; both bodies can be read."""
        stream = self._cloned()
        copy = Request.__new__(Request)
        copy.url, copy.method, copy.redirect = self.url, self.method, self.redirect
        copy.headers = Headers(self.headers)
        copy._cf = self._cf
        copy._stream = stream
        return copy

    def _handed_over(self) -> ReadableStream | None:
        """Move the body to a new request made from this one; this body is then used."""
        if self._stream is None:
            return None
        if self._stream.locked:
            raise JsException("TypeError", USED)
        content = self._stream._take()
        return ReadableStream(content)

    def _to_wire(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "url": self.url,
            "headers": self.headers._to_wire(),
            "body": self._wire_body(),
            "redirect": self.redirect,
        }

    def __repr__(self) -> str:
        return "[object Request]"


class Response(Body):
    """``new Response(body, init)``."""

    type = "default"

    def __init__(self, body: Any = None, init: Any = None, **options: Any) -> None:
        options = _options(init) | options
        status = options.get("status")
        self.status = 200 if status is None else int(status)
        self.statusText = str(options.get("statusText") or "")
        self.headers = Headers(options.get("headers"))
        self.url = ""
        self.redirected = False
        if not 200 <= self.status <= 599:
            raise JsException(
                "RangeError",
                "Responses may only be constructed with status codes in the range 200 to 599, "
                "inclusive.",
            )
        if self.status in _NULL_BODY:
            _check_empty(body)
            body = None
        self._set_body(body)

    @classmethod
    def _of(cls, wire: dict[str, Any], method: str) -> Response:
        """Return a response received over the wire to a request with that method."""
        response = cls.__new__(cls)
        response.status = wire["status"]
        text = wire["statusText"]
        response.statusText = _PHRASES.get(wire["status"], "") if text is None else text
        response.headers = Headers._of(wire["headers"])
        response.url = wire["url"]
        response.redirected = wire["redirected"]
        empty = method == "HEAD" or wire["status"] in _NULL_BODY
        response._stream = None if empty else ReadableStream(wire["body"])
        return response

    @property
    def ok(self) -> bool:
        """True if the status is 2xx."""
        return 200 <= self.status <= 299

    @staticmethod
    def redirect(url: str, status: int = 302) -> Response:
        """Return a redirect response; the URL must be absolute, JsException otherwise."""
        if status not in _REDIRECTS:
            raise JsException("RangeError", f"{status} is not a redirect status code.")
        return Response(None, status=status, headers={"location": normal_url(url)})

    @staticmethod
    def error() -> Response:
        """Not supported: a handler that fails must raise."""
        raise JsException("Error", "Response.error() is not in edgesim; raise an exception")

    def json(self, *args: Any, **options: Any) -> Any:
        """Read and parse the body, raw; called on the class: return a Response of JSON."""
        if isinstance(self, Response):
            return self._read_json()
        return _json_response(self, *args, **options)

    async def _read_json(self) -> Any:
        try:
            return to_proxy(json.loads(await self.text()))
        except ValueError as error:
            raise JsException("SyntaxError", f"{error}") from None

    def clone(self) -> Response:
        """Return a copy; both bodies can be read."""
        stream = self._cloned()
        copy = Response.__new__(Response)
        copy.status, copy.statusText = self.status, self.statusText
        copy.url, copy.redirected = self.url, self.redirected
        copy.headers = Headers(self.headers)
        copy._stream = stream
        return copy

    def _to_wire(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "statusText": self.statusText,
            "headers": self.headers._to_wire(),
            "body": self._wire_body(),
        }

    def __repr__(self) -> str:
        return "[object Response]"


def _check_empty(body: Any) -> None:
    """Raise a JsException (a TypeError) for a non-empty body, if the status allows none."""
    content, _ = _extract(body)
    if content:
        raise JsException(
            "TypeError",
            "Response with null body status (101, 204, 205, or 304) cannot have a body.",
        )


def _json_response(data: Any, init: Any = None, **options: Any) -> Response:
    raw = to_js(data)
    text = json.dumps(raw._to_wire() if isinstance(raw, JsProxy) else raw, separators=(",", ":"))
    options = _options(init) | options
    headers = Headers(options.pop("headers", None))
    if not headers.has("content-type"):
        headers.append("content-type", "application/json")
    return Response(text, headers=headers, **options)


def _options(init: Any) -> dict[str, Any]:
    if init is None:
        return {}
    if isinstance(init, Response):
        return {"status": init.status, "statusText": init.statusText, "headers": init.headers}
    return dict(init._value) if isinstance(init, JsProxy) else dict(init)


def _method(given: Any, original: Request | None) -> str:
    if given is None:
        return original.method if original else "GET"
    method = str(given)
    if not _METHOD.fullmatch(method):
        raise JsException("TypeError", f"{method!r} is not a valid HTTP method.")
    return method.upper() if method.upper() in _NORMALISED else method


def _redirect(given: Any, original: Request | None) -> str:
    if given is None or given is jsnull:
        return original.redirect if original else "follow"
    if given not in {"follow", "manual"}:
        raise JsException(
            "TypeError",
            'Invalid redirect value, must be one of "follow" or "manual" ("error" is not '
            "supported: a Worker sees the redirect's status with manual).",
        )
    return str(given)


def normal_url(url: str) -> str:
    """Normalize an absolute URL; JsException (a TypeError) for an invalid or relative one."""
    try:
        return parse(url).href
    except InvalidUrlError:
        raise JsException("TypeError", f"Invalid URL: {url}") from None


async def fetch(resource: Any, init: Any = None, **options: Any) -> Response:
    """Send a request to any URL and return its response."""
    if isinstance(resource, Request) and init is None and not options:
        return await send("", resource)
    return await send("", Request(resource, init, **options))


async def send(binding: str, request: Request) -> Response:
    """Send the request through a binding; "" is the global ``fetch``."""
    await request._settle()
    wire = await invocation().call(binding, "fetch", [request._to_wire()])
    return Response._of(wire, request.method)
