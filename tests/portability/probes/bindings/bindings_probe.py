"""Probes of env and its bindings: each path runs one function."""

import asyncio
import json
from datetime import UTC, datetime
from urllib.parse import urlsplit

from pyodide.ffi import JsException, jsnull

from workers import Request, Response, WorkerEntrypoint, env, fetch


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        name = urlsplit(request.url).path.strip("/")
        result = await globals()[name](self.env, request)
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


async def variables(env, request):
    return [
        env.TEXT,
        env.NUMBER + 1,
        env.FLAG is True,
        env.LIST.to_py(),
        len(env.LIST),
        env.LIST[1],
        env.LIST[2].three,
        env.TABLE.name,
        env.TABLE.inner.deep[0],
        env.TABLE.to_py(),
        getattr(env.TABLE, "absent", "none"),
        await failing(lambda: env.TABLE["name"]),
    ]


async def env_is_no_dict(env, request):
    return [
        await failing(lambda: env["TEXT"]),
        await failing(lambda: env.ABSENT),
        getattr(env, "ABSENT", None),
    ]


async def the_module_env(_, request):
    return [env.TEXT, await failing(lambda: env.ABSENT)]


async def queue_send(env, request):
    await env.QUEUE.send({"a": [1, 2.0, None, True], "b": "ü"})
    await env.QUEUE.send("text", contentType="text", delaySeconds=5)
    await env.QUEUE.send(b"\x00\xff", {"contentType": "bytes"})
    answer = await env.QUEUE.send([1], unknown_option=1)
    return [answer.metadata.metrics.backlogCount, answer["metadata"]["metrics"]["backlogBytes"]]


async def queue_send_values(env, request):
    await env.QUEUE.send(datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC))
    await env.QUEUE.send(datetime(2026, 1, 2))
    await env.QUEUE.send({"bytes": b"ab", "nested": {"x": [{"y": None}]}})
    await env.QUEUE.send(None)
    await env.QUEUE.send(2**53 - 2)
    return []


async def queue_refusals(env, request):
    never_awaited = asyncio.sleep(0)
    found = [await failing(lambda: env.QUEUE.send(never_awaited))]
    never_awaited.close()
    return [
        *found,
        await failing(lambda: env.QUEUE.send((1, 2))),
        await failing(lambda: env.QUEUE.send({"a": [(1,)]})),
        await failing(lambda: env.QUEUE.send(bytearray(b"x"))),
        await failing(lambda: env.QUEUE.send(2**53 - 1)),
        await failing(lambda: env.QUEUE.send(-(2**53) + 1)),
        await failing(lambda: env.QUEUE.send(5, contentType="text")),
        await failing(lambda: env.QUEUE.send("x", contentType="bytes")),
        await failing(lambda: env.QUEUE.send("x", contentType="nonsense")),
    ]


async def queue_send_batch(env, request):
    answer = await env.QUEUE.sendBatch(
        [{"body": {"n": 1}}, {"body": "t", "contentType": "text", "delaySeconds": 3}],
        {"delaySeconds": 9},
    )
    return [answer.metadata.metrics.backlogCount]


async def queue_metrics(env, request):
    found = await env.QUEUE.metrics()
    return [found.backlogCount, found["backlogBytes"]]


async def queue_error(env, request):
    try:
        await env.QUEUE.send({"a": 1})
    except JsException as error:
        return [str(error), error.name, error.message]


async def r2_put_and_get(env, request):
    stored = await env.BUCKET.put(
        "a/key", "text", httpMetadata={"contentType": "x/y"}, customMetadata={"who": "me"}
    )
    found = await env.BUCKET.get("a/key")
    return [
        stored.key,
        stored.size,
        stored.etag,
        found.key,
        found.size,
        found["key"],
        found.httpEtag,
        isinstance(found.uploaded, datetime),
        found.uploaded.tzinfo is None,
        found.customMetadata["who"],
        found.httpMetadata.contentType,
        await found.text(),
    ]


async def r2_reading(env, request):
    for key, value in {"b": b"\x00\x01", "m": memoryview(b"mv"), "j": '{"a": [1, null]}'}.items():
        await env.BUCKET.put(key, value)
    buffer = await (await env.BUCKET.get("b")).arrayBuffer()
    found = await env.BUCKET.get("j")
    return [
        type(buffer).__name__,
        list(bytes(buffer)),
        await (await env.BUCKET.get("m")).text(),
        (await found.json())["a"],
        await failing(found.text),
    ]


async def r2_missing(env, request):
    await env.BUCKET.delete("nothing")
    await env.BUCKET.delete(["one", "two"])
    return [await env.BUCKET.get("nothing"), await env.BUCKET.head("nothing")]


async def r2_conditions(env, request):
    stored = await env.BUCKET.put("k", "text")
    missed = await env.BUCKET.get("k", onlyIf={"etagMatches": "0" * 32})
    hit = await env.BUCKET.get("k", {"onlyIf": {"etagMatches": stored.etag}})
    part = await env.BUCKET.get("k", range={"offset": 1, "length": 2})
    return [
        missed.key,
        await failing(lambda: missed.body),
        getattr(missed, "body", None),
        await hit.text(),
        await part.text(),
    ]


async def r2_list(env, request):
    for key in ("a/1", "a/2", "b/1"):
        await env.BUCKET.put(key, key)
    listing = await env.BUCKET.list(prefix="a/", limit=1)
    first = listing.objects[0]
    return [
        listing.truncated,
        len(listing.objects),
        first.key,
        first.size,
        await failing(lambda: first["key"]),
        [each.key for each in (await env.BUCKET.list()).objects],
    ]


async def r2_refusals(env, request):
    return [
        await failing(lambda: env.BUCKET.put("k", (1, 2))),
        await failing(lambda: env.BUCKET.put("k", bytearray(b"x"))),
    ]


async def r2_error(env, request):
    try:
        await env.BUCKET.get("k")
    except Exception as error:
        return [type(error).__name__, str(error)]


async def r2_body_passed_on(env, request):
    found = await env.BUCKET.get("o")
    await env.SERVICE.fetch("http://s/copy", method="POST", body=found.body)
    return Response((await env.BUCKET.get("o")).body, headers={"x-etag": found.etag})


async def service_fetch(env, request):
    answer = await env.SERVICE.fetch(
        "http://s/path?q=1", method="POST", headers={"X-A": "1"}, body=json.dumps({"a": 1})
    )
    return [
        type(answer).__name__,
        answer.status,
        answer.ok,
        answer.headers["x-b"],
        answer.url,
        await answer.json(),
    ]


async def service_fetch_bytes(env, request):
    await env.SERVICE.fetch("http://s/", method="PUT", body=b"\x00\xff")
    await env.SERVICE.fetch("http://s/", method="PUT", body=bytearray(b"ba"))
    await env.SERVICE.fetch("http://s/", method="PUT", body=memoryview(b"mv"))
    await env.SERVICE.fetch("http://s/")
    return []


async def service_fetch_of_a_request(env, request):
    made = Request("http://s/made", method="POST", headers={"x-a": "1"}, body="made")
    answer = await env.SERVICE.fetch(made)
    return [answer.status, await answer.text()]


async def service_passes_the_request_on(env, request):
    answer = await env.SERVICE.fetch(request)
    return Response(answer.body, status=answer.status)


async def service_error_statuses(env, request):
    answer = await env.SERVICE.fetch("http://s/")
    return [answer.status, answer.ok, await answer.text()]


async def service_refusals(env, request):
    return [
        await failing(lambda: env.SERVICE.fetch("http://s/", {"method": "POST"})),
    ]


async def service_fails(env, request):
    try:
        await env.SERVICE.fetch("http://s/")
    except OSError as error:
        return [type(error).__name__, str(error)]


async def service_rpc(env, request):
    return [
        await env.SERVICE.add(1, 2),
        (await env.SERVICE.table({"a": 1}, [None, True])).name,
        await failing(lambda: env.SERVICE.absent()),
        await failing(lambda: env.SERVICE.add((1, 2))),
    ]


async def service_rpc_error(env, request):
    try:
        await env.SERVICE.broken()
    except JsException as error:
        return [str(error)]


async def outbound_fetch(_, request):
    answer = await fetch("https://api.example/x", method="POST", body="hi", headers={"X-A": "1"})
    return [answer.status, answer.headers["content-type"], await answer.text()]


async def outbound_fetch_fails(_, request):
    try:
        await fetch("https://api.example/x")
    except OSError as error:
        return [type(error).__name__, str(error)]


async def null_is_not_none(env, request):
    return [bool(jsnull), jsnull is None, repr(jsnull)]
