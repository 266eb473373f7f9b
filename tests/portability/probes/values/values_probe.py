"""Probes of console, raw JavaScript values, conversions and time: each path runs one function."""

import asyncio
import logging
import sys
import time
from datetime import datetime
from urllib.parse import urlsplit

from js import JSON, Object, console
from pyodide.ffi import JsException, JsProxy, create_proxy, jsnull, to_js

from workers import Response, WorkerEntrypoint, python_from_rpc, python_to_rpc


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        name = urlsplit(request.url).path.strip("/")
        return Response.json(await globals()[name](self))


def failing(call):
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return "nothing"


async def printing(worker):
    print("PIPE_ME", {"a": 1}, 2)
    print("one\ntwo")
    print()
    print("no newline", end="")
    print(" until now")
    sys.stdout.write("written\n")
    print("to stderr", file=sys.stderr)
    logging.warning("logged %s", 1)
    logging.info("not shown")
    return []


async def console_calls(worker):
    console.log("PIPE_ME", "x", 1, 2.5, True, None)
    console.debug("d")
    console.info("i")
    console.warn("w")
    console.error("e", {"a": 1}, [1])
    console.log(to_js({"a": [1, None]}, dict_converter=Object.fromEntries))
    console.log()
    return []


async def raw_objects(worker):
    raw = to_js({"a": 1, "b": {"c": [1, "x"]}, "n": None}, dict_converter=Object.fromEntries)
    return [
        raw.a,
        bytes(to_js(b"ab").buffer.to_py()).hex(),
        raw.b.c[1],
        len(raw.b.c),
        list(raw.b.c),
        raw.n is None,
        failing(lambda: raw["a"]),
        failing(lambda: raw.absent),
        isinstance(raw, JsProxy),
        raw.to_py()["b"],
        JSON.stringify(raw),
        [key for key in raw.object_keys()],
    ]


async def parsed_json(worker):
    raw = JSON.parse('{"a": null, "b": [1.0, 2.5], "c": "x"}')
    return [
        raw.a is jsnull,
        raw.a is None,
        bool(raw.a),
        raw.b[0],
        type(raw.b[0]).__name__,
        raw.b[1],
        raw.c,
        JSON.stringify(raw),
        failing(lambda: JSON.parse("{")),
    ]


async def conversions(worker):
    there = python_to_rpc({"a": [1, None, {"b": "x"}], "t": datetime(2026, 1, 2)})
    back = python_from_rpc(there)
    return [
        there.a[2].b,
        there.a[1] is jsnull,
        type(back).__name__,
        back["a"],
        back.a[2].b,
        back.t.isoformat(),
        python_from_rpc(jsnull),
        python_to_rpc(None) is jsnull,
        python_from_rpc(5),
        list(bytes(python_from_rpc(python_to_rpc(b"ab")))),
        failing(lambda: python_to_rpc((1, 2))),
        failing(lambda: python_to_rpc([bytearray(b"x")])),
    ]


async def attributes_of_a_dict(worker):
    back = python_from_rpc(python_to_rpc({"name": "n", "items": [1]}))
    back.added = 2
    return [back.name, back["items"], callable(back.items), back["added"], dict(back)]


async def exceptions(worker):
    error = JsException("TypeError", "text")
    return [str(error), error.name, error.message]


async def proxies(worker):
    function = create_proxy(lambda: 5)
    return [function()]


async def asyncio_works(worker):
    async def half(number):
        await asyncio.sleep(0.001)
        return number / 2

    together = await asyncio.gather(half(2), half(4))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(half(6))
    queue = asyncio.Queue()
    await queue.put("item")
    timed_out = False
    try:
        async with asyncio.timeout(0.005):
            await asyncio.sleep(1)
    except TimeoutError:
        timed_out = True
    return [together, task.result(), await queue.get(), timed_out]


async def the_time(worker):
    return [int(time.time() * 1000)]


async def sizes(worker):
    print(hash("a") == hash("a"))
    return [failing(lambda: worker.ctx.wait_until), failing(lambda: worker.env.X)]
