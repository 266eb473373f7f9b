"""Request, Response and fetch, as the platform's Python SDK has them."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from http.client import HTTPMessage
from typing import Any

from workers._runtime import invocation


class HTTPMethod(StrEnum):
    """The verbs that Request knows."""

    GET = "GET"
    HEAD = "HEAD"
    POST = "POST"
    PUT = "PUT"
    DELETE = "DELETE"
    CONNECT = "CONNECT"
    OPTIONS = "OPTIONS"
    TRACE = "TRACE"
    PATCH = "PATCH"


# Fetch's own rule: a value is bytes without line ends and NUL, so nothing can follow it.
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[^\r\n\0\u0100-\U0010ffff]*")

HeaderInit = HTTPMessage | Mapping[str, str] | Iterable[tuple[str, str]]


def header_pairs(headers: HeaderInit | None) -> list[tuple[str, str]]:
    """Header pairs from what the constructors accept; TypeError otherwise."""
    if headers is None:
        return []
    if isinstance(headers, HTTPMessage | Mapping):
        pairs = [(str(name), str(value)) for name, value in headers.items()]
    elif isinstance(headers, list):
        pairs = [(str(name), str(value)) for name, value in headers]
    else:
        raise TypeError("Received unexpected type for headers argument")
    for name, value in pairs:
        if not _NAME.fullmatch(name):
            raise TypeError("Invalid header name.")
        if not _VALUE.fullmatch(value):
            raise TypeError("Invalid header value.")
    return pairs


def message_of(pairs: Iterable[tuple[str, str]]) -> HTTPMessage:
    """Headers as the SDK shows them: case-insensitive, a missing name gives None."""
    message = HTTPMessage()
    for name, value in pairs:
        message.add_header(name, value)
    return message


class ReadableStream:
    """A body: pass it on, or read it once.  ``handle`` is the platform's, or the bytes."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._used = False

    @property
    def locked(self) -> bool:
        """Whether somebody has begun to read or has passed the stream on."""
        return self._used

    def _to_wire(self) -> Any:
        if self._used:
            raise OSError("Body already used")
        self._used = True
        return self._handle

    async def _read_all(self) -> bytes:
        handle = self._to_wire()
        if isinstance(handle, bytes):
            return handle
        whole = io.BytesIO()  # which gives away its buffer: to join chunks takes twice the memory
        while chunk := await invocation().call("", "read", [handle.id]):
            whole.write(chunk)
        return whole.getvalue()


class BodyReader:
    """What Request, Response and stored objects have in common: a body that is read once."""

    def __init__(self, content: Any) -> None:
        self._body = content if isinstance(content, ReadableStream) else ReadableStream(content)

    @property
    def body(self) -> ReadableStream:
        """The body as a stream to pass on; reading it is for the methods."""
        return self._body

    @property
    def body_used(self) -> bool:
        """Whether the body has been read or passed on."""
        return self._body.locked

    async def bytes(self) -> bytes:
        """The whole body; OSError at the second read."""
        return await self._body._read_all()

    async def text(self) -> str:
        """The whole body as UTF-8, broken bytes replaced."""
        return (await self.bytes()).decode("utf-8", "replace")

    async def json(self, **loads_kwargs: Any) -> Any:
        """The whole body parsed; json.JSONDecodeError (a ValueError) if it is not JSON."""
        return json.loads(await self.text(), **loads_kwargs)

    async def buffer(self) -> memoryview:
        """The whole body as a buffer."""
        return memoryview(await self.bytes())


def wire_body(body: Any) -> Any:
    """A request or response body for the wire: bytes, or the handle of a stream."""
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode("utf-8", "surrogatepass")
    if isinstance(body, bytes):
        return body
    if isinstance(body, bytearray | memoryview):
        return bytes(body)
    if isinstance(body, ReadableStream):
        return body._to_wire()
    raise TypeError(
        f"a body must be str, bytes or a stream, not {type(body).__name__}; "
        "use json.dumps for JSON (the platform would send '[object Object]')"
    )


class Request(BodyReader):
    """An incoming or outgoing request."""

    url: str
    method: HTTPMethod
    headers: HTTPMessage
    cf: dict[str, Any]

    def __init__(
        self,
        input: str | Request,
        *,
        method: str = "GET",
        headers: HeaderInit | None = None,
        body: Any = None,
        cf: dict[str, Any] | None = None,
    ) -> None:
        if isinstance(input, Request):
            url = input.url
            method = input.method
            headers = input.headers if headers is None else headers
            content = input.body._to_wire() if body is None else wire_body(body)
        else:
            url = input
            content = wire_body(body)
        super().__init__(content)
        self.url = url
        self.method = HTTPMethod[method.upper()]
        self.headers = message_of(header_pairs(headers))
        _default_type(self.headers, body)
        self.cf = cf or {}

    @classmethod
    def _from_wire(cls, event: dict[str, Any]) -> Request:
        request = cls.__new__(cls)
        BodyReader.__init__(request, event["body"])
        request.url = event["url"]
        request.method = HTTPMethod[event["method"]]
        request.headers = message_of(event["headers"])
        request.cf = event["cf"]
        return request

    def _to_wire(self) -> dict[str, Any]:
        return {
            "method": str(self.method),
            "url": self.url,
            "headers": header_pairs(self.headers),
            "body": self._body._to_wire(),
        }

    def clone(self) -> Request:
        """A second Request over the same body; TypeError for a body that is not in memory."""
        content = self._body._handle
        if self._body.locked or not isinstance(content, bytes):
            raise TypeError("edgesim can clone a request only before its body is read, in memory")
        return Request(self.url, method=self.method, headers=self.headers, body=content, cf=self.cf)


class FetchResponse(BodyReader):
    """The answer that fetch returned."""

    status: int
    status_text: str
    headers: HTTPMessage
    url: str
    redirected = False

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status <= 299

    @classmethod
    def _from_wire(cls, wire: dict[str, Any], url: str) -> FetchResponse:
        response = cls.__new__(cls)
        BodyReader.__init__(response, wire["body"])
        response.status = wire["status"]
        response.status_text = ""
        response.headers = message_of(wire["headers"])
        response.url = url
        return response

    def raise_for_status(self) -> None:
        """OSError for a 4xx or 5xx."""
        if self.status >= 400:
            raise OSError(f"{self.status} {self.status_text} for url {self.url}")

    def _to_wire(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "headers": header_pairs(self.headers),
            "body": self._body._to_wire(),
        }


class Response(FetchResponse):
    """A handler's own answer."""

    def __init__(
        self,
        body: Any = None,
        status: int | None = None,
        status_text: str = "",
        headers: HeaderInit | None = None,
    ) -> None:
        if body is not None and not isinstance(body, str | bytes | ReadableStream):
            raise TypeError(f"Unsupported type in Response: {type(body).__name__}")
        self.status = 200 if status is None else int(status)
        if not 200 <= self.status <= 599:
            raise ValueError(
                "Responses may only be constructed with status codes in the range 200 to 599, "
                "inclusive."
            )
        if body is not None and self.status in {204, 205, 304}:
            raise TypeError("Response with null body status (204, 205, or 304) cannot have a body.")
        super().__init__(body if isinstance(body, ReadableStream) else wire_body(body))
        self.status_text = status_text
        self.headers = message_of(header_pairs(headers))
        self.url = ""
        _default_type(self.headers, body)

    @staticmethod
    def from_json(
        data: Any, status: int = 200, status_text: str = "", headers: HeaderInit | None = None
    ) -> Response:
        """A Response of JSON, its content type set unless the headers have one."""
        pairs = header_pairs(headers)
        if not any(name.lower() == "content-type" for name, _ in pairs):
            pairs.append(("content-type", "application/json"))
        return Response(json.dumps(data), status, status_text, pairs)

    # The platform's SDK, too, gives up the reading method for the constructor on this class.
    json = from_json  # type: ignore[assignment]

    @staticmethod
    def redirect(url: str, status: int = 302) -> Response:
        """A redirect to an absolute URL."""
        if status not in {301, 302, 303, 307, 308}:
            raise ValueError("Invalid status code")
        return Response(None, status, headers={"location": url})


async def fetch(resource: str | Request, **options: Any) -> FetchResponse:
    """A request to anywhere; options are Request's.  4xx and 5xx are responses, not exceptions."""
    return await fetch_through("", resource, options)


async def fetch_through(
    binding: str, resource: str | Request, options: dict[str, Any]
) -> FetchResponse:
    """Fetch by way of a binding; "" is the open internet, as the platform allows it."""
    if isinstance(resource, Request) and not options:
        request = resource
    else:
        known = {key: options[key] for key in ("method", "headers", "body", "cf") if key in options}
        request = Request(resource, **known)
    wire = await invocation().call(binding, "fetch", [request._to_wire()])
    return FetchResponse._from_wire(wire, request.url)


def _default_type(headers: HTTPMessage, body: Any) -> None:
    if isinstance(body, str) and headers["content-type"] is None:
        headers.add_header("content-type", "text/plain;charset=UTF-8")
