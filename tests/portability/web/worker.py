"""Worker, equivalent to worker.mjs: an echo, and Responses and fetches by description."""

import base64
import json
from urllib.parse import urlsplit

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


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        described = request.headers.get("x-spec")
        path = urlsplit(request.url).path
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
