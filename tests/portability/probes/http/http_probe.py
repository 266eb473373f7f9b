"""Probes of the SDK's Request, Response and headers: each path runs one function."""

import json
from http import HTTPMethod, HTTPStatus
from urllib.parse import urlsplit

from js import Headers

from workers import FetchResponse, Request, Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        result = await globals()[urlsplit(request.url).path.strip("/")](request)
        return Response.json(result) if isinstance(result, list | dict) else result


async def failing(call):
    """Return the class name of the exception of the call or of its awaitable, or "nothing"."""
    try:
        result = call()
        if hasattr(result, "__await__"):
            await result
    except Exception as error:
        return type(error).__name__
    return "nothing"


async def request_line(request):
    return [
        request.method,
        isinstance(request.method, HTTPMethod),
        request.method == "POST",
        request.url,
        type(request.url).__name__,
        repr(request),
        request.body_used,
        await request.text(),
        request.body_used,
    ]


async def request_headers(request):
    headers = request.headers
    return [
        headers["x-one"],
        headers.get("X-ONE"),
        headers["absent"],
        headers.get("absent", "default"),
        "X-One" in headers,
        sorted(headers.keys()),
        dict(headers.items())["x-one"],
        headers.get_all("x-one"),
        len(headers),
    ]


async def raw_headers_by_item(request):
    headers = Headers.new({"x-a": "1"}.items())
    headers["X-B"] = "2"
    return [
        headers["x-b"],
        await failing(lambda: headers.__delitem__("x-a")),
        "X-B" in headers,
        "x-a" in headers,
        await failing(lambda: headers["x-a"]),
        await failing(lambda: headers.__delitem__("x-a")),
        await failing(lambda: len(headers)),
    ]


async def headers_are_a_copy(request):
    request.headers["x-new"] = "1"
    response = Response("x", headers={"x-a": "1"})
    response.headers["x-a"] = "2"
    return [request.headers["x-new"], response.headers["x-a"]]


async def body_twice(request):
    first = await request.bytes()
    found = [await failing(request.text), await failing(request.bytes), await failing(request.json)]
    return [first.decode(), type(first).__name__, *found, await failing(request.clone)]


async def clones(request):
    copy = request.clone()
    return [await copy.text(), await request.text(), copy.url, copy.method, copy.headers["x-one"]]


async def read_buffer(request):
    raw = await request.buffer()
    return [raw.to_bytes().decode(), raw.byteLength, bytes(raw.to_memoryview()).decode()]


async def read_json(request):
    return [await request.json()]


async def bad_json(request):
    try:
        await request.json()
    except json.JSONDecodeError as error:
        return [type(error).__name__, isinstance(error, ValueError), error.pos]


async def read_text_of_broken_utf8(request):
    return [await request.text()]


async def request_without_body(request):
    return [bool(request.body), await request.text(), list(await request.bytes())]


async def cf_properties(request):
    cf = request.cf
    return [
        cf.country,
        cf.asn,
        getattr(cf, "absent", "none"),
        cf.nested.deep,
        cf.tags[1],
        len(cf.tags),
    ]


async def no_cf(request):
    return [request.cf is None]


async def made_request(request):
    made = Request(
        "http://EXAMPLE.com:80/a b?q=ä#f", method="post", headers={"X-A": "1"}, body="text"
    )
    again = Request(made, headers={"x-b": "2"})
    return [
        made.url,
        made.method,
        made.headers["x-a"],
        made.headers["content-type"],
        again.headers["x-a"],
        again.headers["x-b"],
        again.method,
        await again.text(),
        made.body_used,
    ]


async def made_of_enum(request):
    return [Request("https://a.example", method=HTTPMethod.PUT, body=b"x").method]


async def refused_requests(request):
    return [
        await failing(lambda: Request("http://a.example/", method="GET", body="x")),
        await failing(lambda: Request("not a url")),
        await failing(lambda: Request("http://a.example/", headers="x: 1")),
        await failing(lambda: Request("http://a.example/", headers={"bad name": "1"})),
        await failing(lambda: Request("http://a.example/", method="FOO").method),
        await failing(lambda: Request(request.js_object, method="POST")),
    ]


async def status_and_text(request):
    response = Response("x", status=HTTPStatus.IM_A_TEAPOT, status_text="Teapot")
    return [response.status, response.status_text, response.ok, Response().status, Response().ok]


async def refused_responses(request):
    return [
        await failing(lambda: Response({"a": 1})),
        await failing(lambda: Response(5)),
        await failing(lambda: Response(bytearray(b"x"))),
        await failing(lambda: Response(memoryview(b"x"))),
        await failing(lambda: Response(["x"])),
        await failing(lambda: Response("x", status=99)),
        await failing(lambda: Response("x", status=600)),
        await failing(lambda: Response("x", status=204)),
        await failing(lambda: Response("x", headers="a: b")),
        await failing(lambda: Response("x", headers={"bad name": "1"})),
        await failing(lambda: Response("x", headers={"a": "b\r\nc: d"})),
        await failing(lambda: Response.json({"a": 1}, status=99)),
        await failing(lambda: Response.json({"a", "b"})),
        await failing(lambda: Response.redirect("http://a.example/", 200)),
    ]


async def text_response(request):
    return Response("héllo", status=201, headers={"X-Kind": "text"})


async def bytes_response(request):
    return Response(b"\x00\xff", headers=[("x-a", "1"), ("x-a", "2"), ("Content-Type", "x/y")])


async def empty_response(request):
    return Response(None, status=204)


async def js_headers_response(request):
    return Response("x", headers=Headers.new({"x-js": " trimmed "}.items()))


async def cookies(request):
    response = Response("x", headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2, c")])
    assert response.headers.get_all("set-cookie") == ["a=1", "b=2, c"]
    return response


async def json_response(request):
    return Response.json({"a": [1, 2.5, None, True, "ü"]}, status=202, headers={"x-a": "1"})


async def json_with_own_type(request):
    return Response.from_json("text", headers={"Content-Type": "application/ld+json"})


async def redirect(request):
    return Response.redirect("https://elsewhere.example/there", 307)


async def reading_a_response(request):
    response = Response("[1,2]", headers={"content-type": "application/json"})
    return [
        repr(response),
        response.body_used,
        await response.json(),
        response.body_used,
        await failing(response.text),
        await failing(response.bytes),
        bytes(await Response(b"ab").memoryview()).decode(),
        await Response("s").string(),
        isinstance(response, FetchResponse),
        response.url,
        response.redirected,
        response.type,
    ]


async def replaced_body(request):
    return Response("old", status=203, headers={"x-kept": "1"}).replace_body("new")


async def a_stream_passed_on(request):
    return Response(request.body, headers={"content-type": "x/stream"})


async def a_stream_read_by_chunks(request):
    content = b""
    async for chunk in request.body:
        content += chunk.to_bytes()
    return [content.decode(), await failing(request.text)]


async def a_reader(request):
    reader = request.body.getReader()
    first = await reader.read()
    last = await reader.read()
    return [first.value.to_bytes().decode(), first.done, last.done]


async def a_clone_is_no_answer(request):
    return Response("x").clone()


async def a_clone_can_be_read(request):
    response = Response("[1]", headers={"X-A": "1"})
    copy = response.clone()
    return [await copy.json(), await response.text(), copy.headers["x-a"], type(copy) is Response]


async def raise_for_status(request):
    try:
        Response("x", status=404, status_text="Gone Fishing").raise_for_status()
    except OSError as error:
        return [type(error).__name__, str(error), error.status]


async def returns_a_tuple(request):
    return "text", 200


async def returns_nothing(request):
    return None


async def returns_text(request):
    return "just text"


async def raises(request):
    raise ValueError("as it says")


async def raises_in_a_chain(request):
    try:
        raise KeyError("first")
    except KeyError as error:
        raise RuntimeError("second") from error
