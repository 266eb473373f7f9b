"""Probes of streams that a Worker writes: TransformStream and ReadableStream."""

import asyncio

from js import JSON, Object, ReadableStream, Response, TextEncoder, TransformStream
from pyodide.ffi import JsException, create_proxy, to_js

ENCODER = TextEncoder.new()


def functions(**given):
    proxies = {name: create_proxy(function) for name, function in given.items()}
    return to_js(proxies, dict_converter=Object.fromEntries)


async def written_streams():
    stream = TransformStream.new()
    writer = stream.writable.getWriter()
    order = []

    async def produce():
        for text in ("one ", "two ", "three"):
            await writer.write(ENCODER.encode(text))
            order.append(text)
        await writer.close()
        order.append("closed")

    producing = asyncio.create_task(produce())
    locked = [stream.readable.locked, stream.writable.locked]
    text = await Response.new(stream.readable).text()
    await producing
    return [text, order, locked, stream.readable.locked, str(stream), str(writer)]


async def reading_step_by_step():
    stream = TransformStream.new()
    writer, reader = stream.writable.getWriter(), stream.readable.getReader()
    done = writer.write("any value")
    sizes = [writer.desiredSize]
    first = await reader.read()
    await done
    sizes.append(writer.desiredSize)
    ending = writer.close()
    last = await reader.read()
    await ending
    await writer.closed
    return [first.value, first.done, str(last.value), last.done, sizes]


async def a_write_before_a_read_waits():
    writer = TransformStream.new().writable.getWriter()
    try:
        await asyncio.wait_for(asyncio.ensure_future(writer.write(ENCODER.encode("x"))), 0.01)
    except TimeoutError:
        return "waits"
    return "does not wait"


async def transformers():
    def start(controller):
        controller.enqueue("start ")

    async def transform(chunk, controller):
        await asyncio.sleep(0)
        controller.enqueue(chunk.upper())
        controller.enqueue("! ")

    def flush(controller):
        controller.enqueue("flush")

    stream = TransformStream.new(functions(start=start, transform=transform, flush=flush))
    writer = stream.writable.getWriter()
    writer.write("a")
    writer.write("b")
    writer.close()
    return [chunk async for chunk in stream.readable]


async def failing_streams():
    found = []

    async def read(stream):
        try:
            await stream.readable.getReader().read()
        except JsException as error:
            found.append(["read", error.name])
        except Exception as error:
            found.append(["read", type(error).__name__, str(error)])

    try:
        JSON.parse("{")
    except JsException as error:
        reason = error
    waiting = TransformStream.new()
    writing = waiting.writable.getWriter()
    reading = asyncio.ensure_future(waiting.readable.getReader().read())
    await asyncio.sleep(0)
    await writing.abort(reason)
    try:
        await reading
    except JsException as error:
        found.append(error.name)
    aborted = TransformStream.new()
    await aborted.writable.getWriter().abort("no more")
    for attempt in (lambda: aborted.writable.getWriter(), lambda: aborted.readable.getReader()):
        try:
            attempt()
        except JsException as error:
            found.append(error.name)
    closed = TransformStream.new()
    writer = closed.writable.getWriter()
    await writer.close()
    for attempt in (lambda: writer.write("late"), writer.close):
        try:
            await attempt()
        except JsException as error:
            found.append(error.name)
    refusing = TransformStream.new(functions(transform=lambda *_: 1 / 0))
    writing = asyncio.ensure_future(refusing.writable.getWriter().write("x"))
    await read(refusing)
    try:
        await writing
    except Exception as error:
        found.append(["write", type(error).__name__])
    text = TransformStream.new()
    text.writable.getWriter().write("text is no body")
    try:
        await Response.new(text.readable).text()
    except JsException as error:
        found.append(error.name)
    return found


async def piped_streams():
    through = TransformStream.new(
        functions(transform=lambda chunk, controller: controller.enqueue(chunk.slice(1)))
    )
    readable = Response.new("abc").body.pipeThrough(through)
    first = await Response.new(readable).text()
    target = TransformStream.new()
    piping = Response.new("xyz").body.pipeTo(target.writable)
    second = await Response.new(target.readable).text()
    await piping
    return [first, second, target.writable.locked]


async def sources():
    chunks = iter([ENCODER.encode("a"), ENCODER.encode("b")])

    def pull(controller):
        chunk = next(chunks, None)
        if chunk is None:
            controller.close()
        else:
            controller.enqueue(chunk)

    def start(controller):
        controller.enqueue(ENCODER.encode("start "))
        controller.close()

    cancelled = []
    endless = ReadableStream.new(
        functions(
            pull=lambda controller: controller.enqueue("x"),
            cancel=lambda reason: cancelled.append(str(reason)),
        )
    )
    reader = endless.getReader()
    first = (await reader.read()).value
    await reader.cancel("enough")
    return [
        await Response.new(ReadableStream.new(functions(pull=pull))).text(),
        await Response.new(ReadableStream.new(functions(start=start))).text(),
        [first, cancelled],
    ]


async def two_readers_of_what_is_written():
    stream = TransformStream.new()
    one, other = stream.readable.tee()
    writer = stream.writable.getWriter()

    async def produce():
        await writer.write(ENCODER.encode("twice"))
        await writer.close()

    producing = asyncio.create_task(produce())
    texts = await asyncio.gather(Response.new(one).text(), Response.new(other).text())
    await producing
    return texts
