"""RPC methods may have every name that the platform allows, whatever edgesim's own classes define.

``tests/portability/test_rpc_names.py`` compares the refusals with workerd.
"""

import inspect
import json
import keyword
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesim.isolates.guest.worker_import import SDK
from edgesim.isolates.protocol import wire
from edgesim.runtime import bindings, worker
from tests.simulated import ask, simulated, write_worker

sys.path.insert(0, SDK)

from edgesim.isolates.guest import entrypoints, serve

pytestmark = pytest.mark.anyio

LEVELS = ["process", "warm", "inline"]
REFUSED_OVER_RPC = {
    *("alarm", "connect", "constructor", "dup"),
    *("webSocketClose", "webSocketError", "webSocketMessage"),
}
UNREACHABLE = {"fetch", "then", "to_py", "ctx", "env"}
"""Names that mean something else: to JavaScript, to Pyodide, or on the instance itself."""
CALLER = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        found = {}
        for name in await request.json():
            try:
                found[name] = await getattr(self.env.B, name)(name)
            except Exception as error:
                found[name] = f"{type(error).__name__}: {error}"
        return Response.json(found)
"""
CALLEE = """
import json

NAMES = json.loads({names!r})

def method(name):
    async def called(self, value):
        return ["called", name, value]
    return called

class Default(WorkerEntrypoint):
    pass

for name in NAMES:
    setattr(Default, name, method(name))
"""
OLD = {"compatibility_date": "2025-08-13"}


def own_names() -> set[str]:
    """Return the names of attributes and fields of the classes that carry a call."""
    found = set()
    for module in (entrypoints, serve, wire, bindings, worker):
        for _, each in inspect.getmembers(module, inspect.isclass):
            found |= set(dir(each))
            if issubclass(each, msgspec.Struct):
                found |= {field.name for field in msgspec.structs.fields(each)}
    usual = {"kind", "rpc", "queue", "scheduled", "tail", "send", "finally", "_private", "toJSON"}
    return {each for each in found | usual if "__" not in each}  # nor names of private attributes


def batched(names):
    """Return parts of the list: a request starts no more than 32 invocations of Workers."""
    return [names[at : at + 30] for at in range(0, len(names), 30)]


async def called(folder, level, names, caller=CALLER, **old):
    """Return what a caller gets for a call of each name."""
    write_worker(folder, "a", caller, services=[{"binding": "B", "service": "b"}])
    write_worker(folder, "b", CALLEE.format(names=json.dumps(sorted(names))), **old)
    found: dict[str, Any] = {}
    async with simulated(folder, "a", "b", isolation=level) as simulator:
        for some in batched(sorted(names)):
            status, body = await ask(simulator, method="POST", body=json.dumps(some).encode())
            assert status == 200
            found |= json.loads(body)
    return found


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("date", ["new", "old"])
async def test_names_of_edgesims_own_attributes(tmp_path, level, date):
    """A method with the name of an attribute of edgesim's classes is a method like any other."""
    names = own_names() - UNREACHABLE - REFUSED_OVER_RPC
    assert len(names) > 60
    found = await called(tmp_path, level, names, **(OLD if date == "old" else {}))
    assert found == {each: ["called", each, each] for each in names}


@pytest.mark.parametrize("level", LEVELS)
async def test_reserved_names(tmp_path, level):
    """workerd's reserved names are refused, and what every instance has is no method."""
    found = await called(tmp_path, level, REFUSED_OVER_RPC | {"ctx"})
    message = "JsException: TypeError: 'dup' is a reserved method and cannot be called over RPC."
    assert found == {
        **{each: message.replace("dup", each) for each in REFUSED_OVER_RPC},
        "ctx": 'JsException: TypeError: The RPC receiver does not implement the method "ctx".',
    }


async def test_keywords_of_python(tmp_path):
    """``env.B.import_()`` calls the method ``import``, as in Pyodide."""
    names = {"import", "class", "None"}
    write_worker(
        tmp_path,
        "a",
        CALLER.replace("getattr(self.env.B, name)", 'getattr(self.env.B, f"{name}_")'),
        services=[{"binding": "B", "service": "b"}],
    )
    write_worker(tmp_path, "b", CALLEE.format(names=json.dumps(sorted(names))))
    async with simulated(tmp_path, "a", "b") as simulator:
        found = json.loads(
            (await ask(simulator, method="POST", body=json.dumps(sorted(names)).encode()))[1]
        )
    assert found == {each: ["called", each, each] for each in names}


def is_ordinary(name):
    trimmed = name.rstrip("_")
    refused = UNREACHABLE | REFUSED_OVER_RPC
    return not (name.startswith("__") or name in refused or keyword.iskeyword(trimmed))


NAMES = st.from_regex(r"[A-Za-z_$é][A-Za-z0-9_$é]{0,12}", fullmatch=True).filter(is_ordinary)


@settings(max_examples=5, deadline=None)
@given(st.sets(NAMES, min_size=20, max_size=60))
async def test_any_name(tmp_path_factory, names):
    """Any other name that JavaScript allows is a method."""
    folder = tmp_path_factory.mktemp("names")
    found = await called(folder, "inline", names)
    assert found == {each: ["called", each, each] for each in names}
