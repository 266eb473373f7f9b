"""Request, Response and fetch of the SDK: Python wrappers of the web classes (folder ``js``).

A wrapper holds the raw object (``js_object``) and converts its values.  Each read of ``headers``
returns a new message, so changes to it have no effect, as on the platform.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPMethod, HTTPStatus
from http.client import HTTPMessage
from typing import Any

import js
import pyodide.http
from js._http import send
from js._stream import ReadableStream
from pyodide.ffi import JsBuffer, JsException, JsProxy, jsnull, to_js
from pyodide.http import AbortError

from workers._blob import Blob
from workers._convert import refuse
from workers._formdata import FormData


class HTTPMessageMapping(HTTPMessage, Mapping[str, str]):  # type: ignore[misc]
    """Headers in the SDK's form: case-insensitive; a missing name returns None."""


def message_of(headers: js.Headers) -> HTTPMessageMapping:
    """Return a new message of the headers, with lower-case names."""
    message = HTTPMessageMapping()
    rest = []
    for name, value in headers.entries():
        if name == "set-cookie":
            message.set_raw("Set-Cookie", value)
        else:
            rest.append((name, value))
    for name, value in rest:
        message.set_raw(name, value)  # add_header would parse each value
    return message


def raw_headers(headers: Any) -> js.Headers:
    """Convert js.Headers, a list or a dict to raw headers; TypeError for other types."""
    if isinstance(headers, js.Headers):
        return headers
    if isinstance(headers, list | dict):
        return js.Headers(headers)
    raise TypeError("Received unexpected type for headers argument")


def raw_body(body: Any) -> Any:
    """Return the raw body: the SDK's forms are unwrapped, other values unchanged."""
    return body.js_object if isinstance(body, FormData) else body


def python_error(error: JsException) -> Exception:
    """Convert RangeError to ValueError and TypeError to TypeError; return others unchanged."""
    kinds: dict[str, type[Exception]] = {"RangeError": ValueError, "TypeError": TypeError}
    kind = kinds.get(error.name)
    return error if kind is None else kind(error.message)


class BodyReader:
    """A body that can be read once, in several formats."""

    def __init__(self, content: Any) -> None:
        self._body = content if isinstance(content, ReadableStream) else ReadableStream(content)

    @property
    def body(self) -> ReadableStream:
        """The body as a stream to pass on; the methods read it."""
        return self._body

    @property
    def body_used(self) -> bool:
        """True if the body has been read or passed on."""
        return self._body.locked

    async def bytes(self) -> bytes:
        """Read the whole body; JsException at the second read."""
        return await self._body._read_all()

    async def text(self) -> str:
        """Read the whole body as UTF-8; invalid bytes are replaced."""
        return (await self.bytes()).decode("utf-8", "replace")

    async def json(self, **loads_kwargs: Any) -> Any:
        """Read and parse the whole body; json.JSONDecodeError (a ValueError) if it is not JSON."""
        return json.loads(await self.text(), **loads_kwargs)

    async def buffer(self) -> memoryview:
        """Read the whole body into a buffer."""
        return memoryview(await self.bytes())


class Request:
    """An incoming or outgoing request."""

    def __init__(self, input: Request | str | js.Request, **other_options: Any) -> None:
        if isinstance(input, js.Request):
            if other_options:
                raise ValueError("Expected no options when constructing Request from a js.Request")
            self._js_request = input
            return
        options = dict(other_options)
        if isinstance(options.get("method"), HTTPMethod):
            options["method"] = options["method"].value
        if "headers" in options:
            options["headers"] = raw_headers(options["headers"])
        options["body"] = raw_body(options.get("body"))
        source = input._js_request if isinstance(input, Request) else input
        self._js_request = js.Request(source, **options)

    @classmethod
    def _from_wire(cls, event: dict[str, Any]) -> Request:
        return cls(js.Request._of(event))

    def __repr__(self) -> str:
        return f"Request(method={self._js_request.method!r}, url={self._js_request.url!r})"

    @property
    def js_object(self) -> js.Request:
        """The raw ``js.Request``."""
        return self._js_request

    @property
    def body(self) -> Any:
        """The body as a raw stream to pass on; jsnull if there is none."""
        return self._js_request.body

    @property
    def body_used(self) -> bool:
        """True if the body has been read or passed on."""
        return self._js_request.bodyUsed

    @property
    def cf(self) -> Any:
        """The platform's metadata of the client, raw: ``request.cf.country``."""
        return self._js_request.cf

    @property
    def cache(self) -> str:
        """JavaScript's ``cache``; always "default"."""
        return self._js_request.cache

    @property
    def headers(self) -> HTTPMessageMapping:
        """Case-insensitive headers; a missing name returns None."""
        return message_of(self._js_request.headers)

    @property
    def integrity(self) -> str:
        """JavaScript's ``integrity``; always ""."""
        return self._js_request.integrity

    @property
    def keepalive(self) -> bool:
        """JavaScript's ``keepalive``; always False."""
        return self._js_request.keepalive

    @property
    def method(self) -> HTTPMethod:
        """The HTTP method; KeyError if it is not in HTTPMethod."""
        return HTTPMethod[self._js_request.method]

    @property
    def redirect(self) -> str:
        """Handling of redirects: "follow" or "manual"."""
        redirect: str = self._js_request.redirect
        return redirect

    @property
    def url(self) -> str:
        """The absolute URL."""
        return self._js_request.url

    def _raise_if_failed(self) -> None:
        if self.body_used:
            raise OSError("Body already used")

    async def buffer(self) -> JsBuffer:
        """Read the whole body, raw."""
        self._raise_if_failed()
        return await self._js_request.arrayBuffer()

    async def form_data(self) -> FormData:
        """Read the form in the body; TypeError if it is not a form."""
        self._raise_if_failed()
        try:
            return FormData(await self._js_request.formData())
        except JsException as error:
            raise python_error(error) from error

    async def blob(self) -> Blob:
        """Read the whole body as a blob."""
        self._raise_if_failed()
        return Blob(await self._js_request.blob())

    async def bytes(self) -> bytes:
        """Read the whole body; OSError at the second read."""
        return (await self.buffer()).to_bytes()

    def clone(self) -> Request:
        """Return a copy; both bodies can be read."""
        self._raise_if_failed()
        return Request(self._js_request.clone())

    async def json(self, **kwargs: Any) -> Any:
        """Read and parse the whole body; json.JSONDecodeError (a ValueError) if it is not JSON."""
        return json.loads(await self.text(), **kwargs)

    async def text(self) -> str:
        """Read the whole body as UTF-8; invalid bytes are replaced."""
        self._raise_if_failed()
        return await self._js_request.text()

    def _to_wire(self) -> dict[str, Any]:
        return self._js_request._to_wire()


class FetchResponse(pyodide.http.FetchResponse):
    """Pyodide's FetchResponse with the SDK's additions."""

    js_response: js.Response

    @property
    def body(self) -> Any:
        """The body as a raw stream to pass on; None if there is none."""
        body = self.js_response.body
        return None if body is jsnull else body

    @property
    def js_object(self) -> js.Response:
        """The raw ``js.Response``."""
        return self.js_response

    @property
    def headers(self) -> HTTPMessageMapping:
        """Case-insensitive headers; a missing name returns None."""
        return message_of(self.js_response.headers)

    async def formData(self) -> FormData:
        """Read the form in the body; older name of ``form_data``."""
        return await self.form_data()

    async def form_data(self) -> FormData:
        """Read the form in the body; TypeError if it is not a form."""
        self._raise_if_failed()
        try:
            return FormData(await self.js_response.formData())
        except JsException as error:
            raise python_error(error) from error

    def replace_body(self, body: Any) -> Response:
        """Return a Response with the same status and headers and another body."""
        return Response(js.Response(raw_body(body), self.js_response))

    async def blob(self) -> Blob:
        """Read the whole body as a blob."""
        self._raise_if_failed()
        return Blob(await self.js_response.blob())

    @staticmethod
    def redirect(url: str, status: HTTPStatus | int = HTTPStatus.FOUND) -> js.Response:
        """Return a redirect to an absolute URL as a raw response, which a handler may return."""
        try:
            return js.Response.redirect(url, int(status))
        except JsException as error:
            raise python_error(error) from error

    @staticmethod
    def from_json(
        data: Any,
        status: HTTPStatus | int = HTTPStatus.OK,
        status_text: str = "",
        headers: Any = None,
    ) -> Response:
        """Return a Response of JSON; its content type is set unless the headers have one."""
        options = _init(status, status_text, headers)
        try:
            if isinstance(data, JsProxy):
                return Response(js.Response.json(data, **options))  # type: ignore[arg-type]
            raw = options.setdefault("headers", js.Headers())
            if not raw.has("content-type"):
                raw.set("content-type", "application/json")
            return Response(js.Response(json.dumps(data), **options))
        except JsException as error:
            raise python_error(error) from error

    def json(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Read and parse the body; called on the class: return a Response of JSON."""
        if isinstance(self, Response):
            return pyodide.http.FetchResponse.json(self)
        return Response.from_json(self, *args, **kwargs)

    def _to_wire(self) -> dict[str, Any]:
        return self.js_response._to_wire()


class Response(FetchResponse):
    """A response: returned by ``fetch``, or made by a handler."""

    def __init__(
        self,
        body: Any = None,
        status: HTTPStatus | int | None = None,
        status_text: str = "",
        headers: Any = None,
        web_socket: Any = None,
    ) -> None:
        if web_socket is not None:
            raise NotImplementedError("WebSockets are not in edgesim")
        if isinstance(body, js.Response):
            if status is not None or status_text or headers is not None:
                raise ValueError(
                    "Expected no options when constructing Response from a js.Response"
                )
            super().__init__(body.url, body)
            return
        if body is not None and not isinstance(body, _BODIES):
            raise TypeError(f"Unsupported type in Response: {type(body).__name__}")
        options = _init(status, status_text, headers)
        super().__init__("", js.Response(raw_body(body), **options))

    def __repr__(self) -> str:
        shown = [f"status={self.status}"]
        if self.status_text:
            shown.append(f"status_text={self.status_text!r}")
        kind = self.headers["content-type"]
        if kind is not None:
            shown.append(f"content_type={kind!r}")
        if self.url:
            shown.append(f"url={self.url!r}")
        return f"Response({', '.join(shown)})"


_BODIES = (
    *(str, bytes, FormData, JsBuffer, ReadableStream),
    *(js.Blob, js.FormData, js.URLSearchParams),
)


def _init(status: Any, status_text: str, headers: Any) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if status:
        options["status"] = int(status)
    if status_text:
        options["statusText"] = status_text
    if headers:
        options["headers"] = raw_headers(headers)
    return options


def handler_response(result: Any) -> js.Response:
    """Return the raw response of a fetch handler's result; TypeError for anything else."""
    refuse(result)
    raw = getattr(result, "js_object", result)
    if not isinstance(raw, js.Response):
        raise TypeError(
            "Incorrect type for Promise: the Promise did not resolve to 'Response'. "
            f"(fetch returned {type(result).__name__})"
        )
    return raw


async def fetch(resource: Any, **other_options: Any) -> Response:
    """Send a request; options are Request's.  4xx and 5xx are responses, not exceptions."""
    fetcher = other_options.pop("fetcher", None)
    if fetcher is None:
        return await fetch_through("", resource, other_options)
    answer = await pyodide.http.pyfetch(_raw_request(resource, other_options), fetcher=fetcher)
    return Response(answer.js_response)


async def fetch_through(binding: str, resource: Any, options: dict[str, Any]) -> Response:
    """Send a request through a binding; "" is the global ``fetch``.

    Raises AbortError if there is no response.
    """
    request = _raw_request(resource, options)
    try:
        return Response(await send(binding, request))
    except JsException as error:
        raise AbortError(error) from None


def _raw_request(resource: Any, options: dict[str, Any]) -> js.Request:
    if isinstance(resource, Request):
        resource = resource.js_object
    if isinstance(resource, js.Request) and not options:
        return resource
    if isinstance(options.get("method"), HTTPMethod):
        options = options | {"method": options["method"].value}
    # JavaScript accepts any object for headers, so a dict becomes one.
    if isinstance(options.get("headers"), dict):
        options = options | {"headers": to_js(options["headers"])}
    return js.Request(resource, **options)
