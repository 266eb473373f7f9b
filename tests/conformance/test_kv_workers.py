"""The KV binding of Python Workers, at every isolation level."""

import json

import anyio
import pytest

from edgesim.errors import RunError
from edgesim.observation.topology import FlowNode, topology
from tests.simulated import ask, simulated, write_worker

LEVELS = ["process", "warm", "inline"]
SOURCE = """
from datetime import datetime
from pyodide.ffi import JsException, to_js
from js import Object

async def fails(call):
    try:
        await call
    except Exception as error:
        return [type(error).__name__, str(error)]
    return ["nothing was raised", ""]

async def case_text(kv):
    return [await kv.put("a", "hällo"), await kv.get("a"), await kv.get("none")]

async def case_json(kv):
    await kv.put("b", '{"a": [1.5, 2.0, null]}')
    found = await kv.get("b", "json")
    return [found.a, found == await kv.get("b", type="json") == await kv.get("b", {"type": "json"})]

async def case_options_to_js(kv):
    options = {"expirationTtl": 60, "metadata": {"m": 1}}
    await kv.put("c", "[1]", to_js(options, dict_converter=Object.fromEntries))
    found = await kv.getWithMetadata("c", to_js({"type": "json"}))
    (key,) = (await kv.list(prefix="c"))["keys"]
    return [found.value, found.metadata.m, found["cacheStatus"], key.expiration > 0]

async def case_bytes(kv):
    await kv.put("d", b"\\x00\\xff")
    await kv.put("e", memoryview(b"abc")[1:])
    found = await kv.get("d", "arrayBuffer")
    other = await kv.get("e", type="arrayBuffer")
    return [type(found).__name__, list(found), bytes(other).decode()]

async def case_stream(kv):
    await kv.put("f", Response("streamed").body)
    return [await kv.get("f"), await Response(await kv.get("f", "stream")).text()]

async def case_large(kv):
    await kv.put("g", b"x" * (25 << 20))
    return [len(await kv.get("g", "arrayBuffer")), len(await kv.get("g"))]

async def case_too_large(kv):
    return await fails(kv.put("h", b"x" * ((25 << 20) + 1)))

async def case_plain_values(kv):
    found = []
    for value in (5, None, True, 1.0, 0.5):
        await kv.put("i", value)
        found.append(await kv.get("i"))
    return found

async def case_refused_values(kv):
    return [await fails(kv.put("j", value)) for value in ({}, [1], datetime(2026, 1, 1))]

async def case_missing_arguments(kv):
    return [await fails(kv.put("j")), await fails(kv.get()), await fails(kv.delete())]

async def case_refused_types(kv):
    await kv.put("k", "1")
    return [await fails(kv.get("k", "blob")), await fails(kv.get(["k"], "stream"))]

async def case_many(kv):
    await kv.put("l1", "1")
    await kv.put("l2", "2", metadata={"at": datetime(2026, 1, 1)})
    found = await kv.get(["l2", "none", "l1"])
    more = await kv.getWithMetadata(["l2", "none"])
    return [found, more, await kv.get(["l1"], "json")]

async def case_limits(kv):
    return [
        await fails(kv.get("")),
        await fails(kv.get("x" * 513)),
        await fails(kv.put("m", "", expirationTtl=59)),
        await fails(kv.put("m", "", {"expiration": 4_000_000_000})),
        await fails(kv.put("m", "", metadata="m" * 1023)),
        await fails(kv.get("m", cacheTtl=29)),
        await fails(kv.list(limit=1001)),
    ]

async def case_list(kv):
    for name in ("b", "B", "é"):
        await kv.put(f"n/{name}", "")
    await kv.put("n/a", "", expiration=2_000_000_000, metadata=[1.0, None])
    page = await kv.list({"prefix": "n/", "limit": 2})
    rest = await kv.list(prefix="n/", cursor=page.cursor)
    return [page["keys"], page.list_complete, rest, "cursor" in rest]

async def case_delete(kv):
    await kv.put("o", "")
    await kv.delete(["o"])
    await kv.delete("none")
    return [await kv.get("o"), await kv.delete("o"), await kv.get("o")]

async def case_numbers_as_keys(kv):
    await kv.put(7, "seven")
    return [await kv.get("7"), await kv.get([7, None])]

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        case = request.headers["x-case"]
        found = await globals()[f"case_{case}"](self.env.KV)
        return Response(json.dumps(found, ensure_ascii=False))
"""
UNKNOWN = 'Unknown response type. Possible types are "text", "arrayBuffer", "json", and "stream".'
VALUES = (
    "KV put() accepts only strings, ArrayBuffers, ArrayBufferViews, and ReadableStreams as values."
)
PARAMETER = "TypeError: Failed to execute '{}' on 'KvNamespace': parameter {} is not of type '{}'."


def error(text):
    return ["JsException", text]


EXPECTED = {
    "text": [None, "hällo", None],
    "json": [[1.5, 2, None], True],
    "options_to_js": [[1], 1, None, True],
    "bytes": ["memoryview", [0, 255], "bc"],
    "stream": ["streamed", "streamed"],
    "large": [25 << 20, 25 << 20],
    "too_large": error(
        "Error: KV PUT failed: 413 Value length of 26214401 exceeds limit of 26214400."
    ),
    "plain_values": ["5", "null", "true", "1", "0.5"],
    "refused_values": [error(f"TypeError: {VALUES}")] * 3,
    "missing_arguments": [
        error(PARAMETER.format("put", 2, "string or Object")),
        error(PARAMETER.format("get", 1, "string or Array")),
        error(PARAMETER.format("delete", 1, "string")),
    ],
    "refused_types": [
        error(f"TypeError: {UNKNOWN}"),
        error('Error: KV GET_BULK failed: 400 "stream" is not a valid type. Use "json" or "text"'),
    ],
    "many": [
        {"l2": "2", "none": None, "l1": "1"},
        {"l2": {"value": "2", "metadata": {"at": "2026-01-01T00:00:00.000Z"}}, "none": None},
        {"l1": 1},
    ],
    "limits": [
        error("TypeError: Key name cannot be empty."),
        error(
            "Error: KV GET failed: 414 UTF-8 encoded length of 513 exceeds key length limit of 512."
        ),
        error(
            "Error: KV PUT failed: 400 Invalid expiration_ttl of 59. Expiration TTL must be at "
            "least 60."
        ),
        error(
            "TypeError: Value out of range. Must be between -2147483648 and 2147483647 (inclusive)."
        ),
        error("Error: KV PUT failed: 413 Metadata length of 1025 exceeds limit of 1024."),
        error("Error: KV GET failed: 400 Invalid cache_ttl of 29. Cache TTL must be at least 30."),
        error(
            "Error: KV GET failed: 400 Invalid key_count_limit of 1001. Please specify an integer "
            "less than 1000."
        ),
    ],
    "list": [
        [{"name": "n/B"}, {"name": "n/a", "expiration": 2_000_000_000, "metadata": [1, None]}],
        False,
        {"keys": [{"name": "n/b"}, {"name": "n/é"}], "list_complete": True, "cacheStatus": None},
        False,
    ],
    "delete": [None, None, None],
    "numbers_as_keys": ["seven", {"7": "seven", "null": None}],
}


@pytest.fixture(scope="module", params=LEVELS)
def answered(request, tmp_path_factory):
    """The replies of all cases at one level."""
    folder = tmp_path_factory.mktemp("cases")
    write_worker(folder, "w", SOURCE, kv_namespaces=[{"binding": "KV", "id": "ns"}])

    async def run():
        async with simulated(folder, "w", isolation=request.param) as simulator:
            return {name: await ask(simulator, headers={"x-case": name}) for name in EXPECTED}

    return anyio.run(run)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_python_worker_uses_kv(answered, name):
    """Values, results and exceptions are those that the platform's SDK gives to Python."""
    status, body = answered[name]
    assert status == 200, body.decode()
    assert json.loads(body) == EXPECTED[name]


@pytest.mark.anyio
async def test_workers_share_a_namespace_by_its_id(tmp_path):
    """The same id is the same namespace under any name; a missing id is the Worker's own."""
    source = """
    class Default(WorkerEntrypoint):
        async def fetch(self, request):
            seen = [await getattr(self.env, name).get("k") for name in ("A", "B")]
            await self.env.A.put("k", self.env.ME)
            return Response(json.dumps(seen))
    """
    shared = {"binding": "A", "id": "shared"}
    for name, other in (("one", {"binding": "B"}), ("two", {"binding": "B", "id": "one-b"})):
        write_worker(tmp_path, name, source, kv_namespaces=[shared, other], vars={"ME": name})
    async with simulated(tmp_path, "one", "two") as simulator:
        assert await ask(simulator, worker="one") == (200, b"[null, null]")
        assert await ask(simulator, worker="two") == (200, b'["one", null]')
        await simulator.primitives.namespace("one-b").put("k", b"own")
        assert await ask(simulator, worker="one") == (200, b'["two", "own"]')
        counted = (await simulator.stats())["kv"]
        found = topology(simulator.project)
    assert counted["shared"] == {"reads": 3, "writes": 3, "deletes": 0, "lists": 0}
    assert counted["one-b"] == {"reads": 3, "writes": 1, "deletes": 0, "lists": 0}
    shared_node = FlowNode("namespace", "shared")
    assert {edge.source.name for edge in found.edges if edge.target == shared_node} == {
        "one",
        "two",
    }


@pytest.mark.anyio
async def test_a_store_that_fails_is_an_internal_error(tmp_path, monkeypatch):
    """A Worker gets the platform's error 500, not the store's own text."""
    source = """
    class Default(WorkerEntrypoint):
        async def fetch(self, request):
            try:
                await self.env.KV.put("k", "v")
            except Exception as error:
                return Response(str(error))
    """

    async def fail(*_):
        raise RunError("disk on fire")

    write_worker(tmp_path, "w", source, kv_namespaces=[{"binding": "KV", "id": "ns"}])
    async with simulated(tmp_path, "w") as simulator:
        monkeypatch.setattr(simulator.primitives.backends.kv, "put", fail)
        assert await ask(simulator) == (200, b"Error: KV PUT failed: 500 Internal Server Error")
