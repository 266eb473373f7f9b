"""Probes of console, raw JavaScript values, conversions and time: each path runs one function."""

import asyncio
import gzip
import logging
import os
import shutil
import sys
import tempfile
import time
import zipfile
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from js import (
    JSON,
    ArrayBuffer,
    DataView,
    Float64Array,
    Int8Array,
    Int16Array,
    Object,
    Uint8Array,
    Uint8ClampedArray,
    console,
)
from pyodide.ffi import JsBuffer, JsException, JsProxy, create_proxy, jsnull, to_js

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


async def typed_arrays(worker):
    array = Uint8Array.new(to_js([1, 2, 300]))
    shared = ArrayBuffer.new(4)
    whole, half = Uint8Array.new(shared), Uint8Array.new(shared, 2)
    half[0] = 7
    assigned = Uint8Array.new(3)
    assigned.assign(b"xyz")
    filled = Int16Array.new(3)
    filled.set(to_js([1, -2]), 1)
    view = DataView.new(array.buffer)
    view.setInt16(0, -2, True)
    return [
        list(array),
        [array.length, len(array), array.byteLength, array.buffer.byteLength, array[-1]],
        [bytes(array).hex(), array.to_bytes().hex(), bytes(array.to_py()).hex()],
        [list(whole), list(Uint8Array.new(shared, 1, 2)), list(whole.subarray(1)), half.byteOffset],
        [list(Uint8Array.new(b"ab")), list(Uint8Array.new(2)), list(Uint8Array.new([1, 2]))],
        [bytes(assigned).hex(), list(filled), filled.to_bytes().hex(), list(filled.slice(1))],
        [view.getUint8(1), view.getUint16(1)],
        [
            list(Float64Array.new(to_js([1.5, 2]))),
            list(Uint8ClampedArray.new(to_js([300, -1, 1.5]))),
        ],
        [str(array), array.join("-"), 254 in array, list(Int8Array.of(200, -1))],
        [to_js(b"ab").byteLength, list(to_js(bytearray(b"ab"))), bytes(to_js(b"ab")).hex()],
        [list(Uint8Array.new(to_js(b"abc"))), Uint8Array.new(to_js(b"hi")).to_string()],
        [ArrayBuffer.isView(array), ArrayBuffer.isView(array.buffer), isinstance(array, JsBuffer)],
        failing(lambda: array[9]),
        failing(lambda: array[0:1]),
        failing(lambda: array.buffer[0]),
        failing(lambda: len(array.buffer)),
        failing(lambda: Int16Array.new(ArrayBuffer.new(3))),
        failing(lambda: Uint8Array.new(-1)),
        failing(lambda: assigned.assign(b"toolong")),
        failing(lambda: view.getUint32(0)),
        await Response(array).text(),
    ]


async def blocking_calls(worker):
    loop = asyncio.get_running_loop()

    def fail():
        raise ValueError("text")

    try:
        await asyncio.to_thread(fail)
        failed = ""
    except ValueError as error:
        failed = str(error)
    return [
        await asyncio.to_thread(divmod, 7, 2),
        await loop.run_in_executor(None, len, "abc"),
        failed,
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


async def files(worker):
    """Files in memory: plain ones, temporary ones, folders, archives, descriptors, failures."""
    found = []
    with open("/tmp/probe.txt", "w") as file:
        file.write("h\u00e9\n" * 2)
    with open("/tmp/probe.txt", "a+") as file:
        file.write("end")
        file.seek(0)
        found += [file.read(), file.name, file.mode, file.closed]
    with open("/tmp/probe.txt", "r+b") as file:
        file.seek(1)
        file.write(b"??")
        found += [file.seek(0, 2), file.truncate(5), file.tell(), type(file).__name__]
    found.append(list(open("/tmp/probe.txt", "rb").read()))
    with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
        file.write("a,b")
        file.flush()
        os.fsync(file.fileno())
        found += [
            Path(file.name).read_text(),
            Path(file.name).parent == Path(tempfile.gettempdir()),
        ]
    found.append(os.path.exists(file.name))
    with tempfile.TemporaryDirectory() as folder:
        os.makedirs(f"{folder}/a/b")
        Path(folder, "a/b/c.txt").write_text("c")
        Path(folder, "a/d.bin").write_bytes(b"dd")
        shutil.copytree(f"{folder}/a", f"{folder}/e")
        shutil.move(f"{folder}/e", f"{folder}/f")
        shutil.make_archive(f"{folder}/packed", "zip", f"{folder}/f")
        with zipfile.ZipFile(f"{folder}/packed.zip") as packed:
            packed.extractall(f"{folder}/g")
        found.append(sorted(str(each.relative_to(folder)) for each in Path(folder).rglob("*")))
        found.append([sorted(names) for _, *both in os.walk(f"{folder}/g") for names in both])
        found.append([os.stat(f"{folder}/g/d.bin").st_size, os.path.isdir(f"{folder}/g")])
        with os.scandir(f"{folder}/f") as entries:
            found.append(sorted([each.name, each.is_dir(), each.is_file()] for each in entries))
        for failing_call in (
            lambda: open(f"{folder}/none"),
            lambda: open(f"{folder}/a", "w"),
            lambda: open(f"{folder}/a/d.bin/x"),
            lambda: open(f"{folder}/a/d.bin", "x"),
            lambda: open(f"{folder}/a/d.bin", "wr"),
            lambda: open(f"{folder}/a/d.bin").write("x"),
            lambda: os.mkdir(f"{folder}/a"),
            lambda: os.rmdir(f"{folder}/a"),
            lambda: os.remove(f"{folder}/a"),
            lambda: os.rmdir(f"{folder}/a/d.bin"),
            lambda: os.rename(f"{folder}/none", f"{folder}/b"),
            lambda: os.rename(f"{folder}/a/d.bin", f"{folder}/a/b"),
            lambda: os.listdir(f"{folder}/a/d.bin"),
            lambda: os.close(os.open(f"{folder}/a/d.bin", os.O_CREAT | os.O_EXCL)),
        ):
            found.append(failing(failing_call))
    found.append(os.path.exists(folder))
    descriptor = os.open("/tmp/probe.txt", os.O_RDWR | os.O_TRUNC)
    found += [os.write(descriptor, b"hello"), os.lseek(descriptor, -2, os.SEEK_CUR)]
    found += [os.read(descriptor, 10).decode(), os.fstat(descriptor).st_size]
    os.ftruncate(descriptor, 2)
    os.close(descriptor)
    found.append(failing(lambda: os.read(descriptor, 1)))
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * 10_000)
        found += [file.seek(9_000), len(file.read())]
    os.replace("/tmp/probe.txt", "/tmp/other.txt")
    found.append(gzip.open("/tmp/packed.gz", "wt").write("text"))
    found += [
        Path("/tmp/other.txt").read_bytes().decode(),
        gzip.open("/tmp/packed.gz").read().decode(),
    ]
    os.remove("/tmp/other.txt")
    os.remove("/tmp/packed.gz")
    return found
