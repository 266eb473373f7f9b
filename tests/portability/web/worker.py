"""Worker, equivalent to worker.mjs: an echo, and Responses and fetches by description."""

import base64
import json
from inspect import isawaitable
from urllib.parse import urlsplit

from js import ArrayBuffer, Blob, File, FormData, Headers, Uint8Array
from js import Request as JsRequest
from js import Response as JsResponse
from pyodide.ffi import JsException, jsnull

from workers import Response, WorkerEntrypoint, fetch

ASKED = ("method", "headers", "body", "redirect")


def as_json(value):
    """Return a Response with the JSON that JavaScript's JSON.stringify writes."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return Response(text, headers={"content-type": "application/json"})


def respond(spec):
    body = bytes(spec["bytes"]) if "bytes" in spec else spec.get("body")
    options = {}
    if "status" in spec:
        options["status"] = spec["status"]
    if "statusText" in spec:
        options["status_text"] = spec["statusText"]
    if "headers" in spec:
        options["headers"] = spec["headers"]
    return Response(body, **options)


async def echo(request):
    seen = {
        name: value
        for name, value in request.headers.items()
        if name.startswith("x-") and name != "x-forwarded-proto"
    }
    shown = {"method": request.js_object.method, "url": request.url, "headers": seen}
    shown |= {"redirect": request.redirect, "body": await request.text()}
    return as_json(shown)


async def form(request):
    try:
        found = await request.form_data()
    except Exception as error:
        return Response(type(error).__name__, status=400)
    entries = []
    for name, value in found.items():
        if isinstance(value, str):
            entries.append([name, value])
        else:
            entries.append([name, value.name, value.content_type, await value.text()])
    return as_json(entries)


async def failing(call):
    """Return the name of the exception that the call raises, or "nothing"."""
    try:
        result = call()
        if isawaitable(result):
            await result
    except JsException as error:
        return error.name
    return "nothing"


def known(value):
    """Return None for null."""
    return None if value is jsnull else value


async def bodies():
    form = FormData.new()
    form.append("a", "1")
    found = []
    for body in [
        jsnull,
        "text",
        Blob.new(["blob"], type="text/x"),
        Uint8Array.new([65, 66]),
        ArrayBuffer.new(2),
    ]:
        response = JsResponse.new(body)
        kind = known(response.headers.get("content-type"))
        found.append([kind, response.body is jsnull, await response.text()])
    posted = JsResponse.new(form)
    kind = posted.headers.get("content-type").split(";")[0]
    found.append([kind, (await posted.formData()).get("a")])
    return found


async def reading_twice():
    response = JsResponse.new("abc")
    before = response.bodyUsed
    copy = response.clone()
    text = await response.text()
    used = [response.bodyUsed, copy.bodyUsed]
    errors = [await failing(response.text), await failing(response.clone)]
    return [before, text, *used, await copy.text(), *errors]


async def tee():
    one, two = JsResponse.new("abc").body.tee()
    return [await JsResponse.new(one).text(), await JsResponse.new(two).text()]


async def reading_nothing():
    response = JsResponse.new(jsnull)
    first = await response.text()
    second = [response.bodyUsed, await response.text()]
    return [first, *second, await failing(JsResponse.new("").json)]


async def json_bodies():
    parsed = (await JsResponse.new('{"a": [1, 2.5, null]}').json()).to_py()
    parsed = {"a": [known(each) for each in parsed["a"]]}
    errors = [await failing(JsResponse.new(text).json) for text in ("{", "\ufeff[]")]
    return [parsed, *errors]


async def statuses():
    async def made(status):
        return await failing(lambda: JsResponse.new(jsnull, status=status))

    return [await made(status) for status in (101, 199, 200, 599, 600, 0)]


async def redirects():
    one = JsResponse.redirect("http://x.example/a b", 303)
    return [
        one.status,
        one.headers.get("location"),
        JsResponse.redirect("http://x.example").status,
        await failing(lambda: JsResponse.redirect("http://x.example/", 200)),
        await failing(lambda: JsResponse.redirect("/relative")),
    ]


async def header_lists():
    given = [["B", "2"], ["a", "1"], ["b", "3"], ["Set-Cookie", "x=1"], ["set-cookie", "y=2"]]
    headers = Headers.new(given)
    before = [list(each) for each in headers]
    headers.delete("B")
    headers.append("a", " 4 ")
    headers.set("C", "5")
    cookies = [headers.get("set-cookie"), list(headers.getSetCookie()), headers.has("SET-COOKIE")]
    lists = [before, list(headers.keys()), list(headers.values())]
    return [*lists, *cookies, known(headers.get("none"))]


async def header_errors():
    headers = Headers.new()
    return [
        await failing(lambda: headers.append("a b", "1")),
        await failing(lambda: headers.set("a", "1\n2")),
        await failing(lambda: headers.get("ä")),
        await failing(lambda: Headers.new([["a"]])),
    ]


async def headers_are_copies():
    headers = Headers.new({"a": "1"})
    response = JsResponse.new("", headers=headers)
    headers.set("a", "2")
    copy = response.clone()
    copy.headers.set("a", "3")
    return [response.headers.get("a"), copy.headers.get("a")]


async def requests():
    url = "http://x.example/a/../b?c#d"
    request = JsRequest.new(url, method="post", body="abc", headers={"X-A": "1"})
    copy = JsRequest.new(request, headers={"x-b": "2"})
    dropped = copy.headers.get("x-a")
    first = [request.method, request.url, request.bodyUsed, copy.method]
    seen = [known(dropped), copy.headers.get("x-b")]
    return [*first, *seen, await copy.text()]


async def request_errors():
    url = "http://x.example/"
    return [
        await failing(lambda: JsRequest.new("/relative")),
        await failing(lambda: JsRequest.new(url, method="A B")),
        await failing(lambda: JsRequest.new(url, method="GET", body="x")),
        await failing(lambda: JsRequest.new(url, method="HEAD", body="x")),
        await failing(lambda: JsRequest.new(url, redirect="error")),
    ]


async def methods():
    names = ("get", "delete", "PATCH", "options")
    return [JsRequest.new("http://x.example/", method=name).method for name in names]


async def blobs():
    blob = Blob.new(["ab", Uint8Array.new([99]), Blob.new(["d"])], type="Text/X")
    part = blob.slice(1, -1, "text/y")
    whole = [blob.size, blob.type, await blob.text()]
    return [*whole, part.size, part.type, await part.text(), await blob.slice(-2).text()]


async def forms():
    form = FormData.new()
    form.append("a", "1")
    form.append("a", "2")
    form.set("b", "3")
    form.append("f", File.new(["file"], "x.txt", type="text/x"))
    file = form.get("f")
    form.delete("b")
    none = form.get("b")
    values = [
        form.get("a"),
        list(form.getAll("a")),
        form.has("b"),
        None if none is jsnull else none,
    ]
    return [*values, list(form.keys()), file.name, file.type, await file.text()]


OPERATIONS = {
    each.__name__: each
    for each in (
        *(bodies, reading_twice, tee, reading_nothing, statuses, redirects, header_lists),
        *(header_errors, headers_are_copies, requests, request_errors, methods, blobs, forms),
    )
} | {"json": json_bodies}


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        described = request.headers.get("x-spec")
        path = urlsplit(request.url).path
        if path.startswith("/operation/"):
            return as_json(await OPERATIONS[path.removeprefix("/operation/")]())
        if path == "/form":
            return await form(request)
        if described is None:
            if path == "/throws":
                raise ValueError("on purpose")
            if path.startswith("/redirect/"):
                return Response("", status=int(path[10:]), headers={"location": "/echo"})
            return await echo(request)
        spec = json.loads(base64.b64decode(described))
        try:
            return await self.ask(spec) if "url" in spec else respond(spec)
        except Exception:
            return Response("raised", status=599)

    async def ask(self, spec):
        options = {key: spec[key] for key in ASKED if key in spec}
        url = spec["url"].replace("ORIGIN", self.env.ORIGIN)
        binding = getattr(self.env, spec["binding"]).fetch if "binding" in spec else fetch
        answer = await binding(url, **options)
        match spec.get("pass"):
            case "answer":
                return answer
            case "body":
                passed = {"x-passed": "body"}
                return Response(answer.body, status=answer.status, headers=passed)
            case "init":
                return answer.replace_body(answer.body)
        where = answer.url.replace(self.env.ORIGIN, "ORIGIN")
        shown = [answer.status, answer.redirected, where, answer.status_text]
        raw = answer.js_object.headers
        headers = [raw.get(name) if raw.has(name) else None for name in spec.get("show", [])]
        return as_json([*shown, headers, answer.body is None, await answer.text()])
