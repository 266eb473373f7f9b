"""Code that runs while the platform imports or compares something gains nothing by it (`warm`)."""

import json

import pytest

from edgesim.model import Limits
from tests.isolation.table import IMPORT_WALKS
from tests.isolation.world import open_world

pytestmark = pytest.mark.anyio

LOOK = """
import gc
import sys

SERVES_ALL = {
    *("Scheduler", "Resident", "KeyedSocket", "SharedState", "LibraryState"),
    *("CodeCache", "_Hook"),
}


def look():
    found = []
    try:
        frame = sys._getframe()
    except PermissionError:
        frame = None
    while frame is not None:
        for name, value in list(frame.f_locals.items()):
            if type(value).__name__ in SERVES_ALL:
                found.append(f"{frame.f_code.co_name}: {name}")
        frame = frame.f_back
    try:
        gc.get_objects()
        found.append("gc.get_objects")
    except PermissionError:
        pass
    return found
"""
MAIN = """
import json

from look import SERVES_ALL, look
from workers import Response, WorkerEntrypoint


class Meta(type):
    asked = []

    def __getattribute__(cls, name):
        if name in {"__module__", "__flags__"}:
            Meta.asked += look()
            type.__setattr__(cls, "seen", True)
        return type.__getattribute__(cls, name)


class Odd(WorkerEntrypoint, metaclass=Meta):
    pass


def vendored():
    import hostile_package

    return hostile_package.FOUND


def metaclass():
    import mailbox  # the platform looks at all classes then

    return Meta.asked


def subclasses():
    WorkerEntrypoint.__subclasses__()
    return Meta.asked


class Text(str):
    asked = []

    def __eq__(self, other):
        Text.asked += look()
        return str.__eq__(self, other)

    def __hash__(self):
        Text.asked += look()
        return str.__hash__(self)


def equality():
    import sys

    sys.path[-1] = Text(sys.path[-1])
    import mailbox  # the platform compares its state then

    return Text.asked


def hash():
    __import__(Text("mailbox"), None, None, (Text("Mailbox"),))
    return Text.asked


class Value:
    asked = []

    @property
    def __dict__(self):
        Value.asked += look()
        return {}


def attributes():
    import os

    os.walk.__globals__["sys"].modules["heapq"].__dict__["value"] = Value()
    import heapq

    return Value.asked


def frames_of(error):
    found = []
    traces = []
    trace = error.__traceback__
    while trace is not None:
        traces.append(trace)
        trace = trace.tb_next
    for trace in traces[-12:]:  # the innermost: a recursion has a thousand
        for name, value in trace.tb_frame.f_locals.items():
            for each in (value, getattr(value, "__self__", None)):
                if type(each).__name__ in SERVES_ALL:
                    found.append(f"{trace.tb_frame.f_code.co_name}: {name}")
    return found + (frames_of(error.__context__) if error.__context__ else [])


def refusal():
    import gc

    try:
        gc.get_objects()
    except PermissionError as error:
        return frames_of(error)


def failed_import():
    sources = __import__.__self__._sources
    found = []
    for name in ("keep", "end_import", "find", "looked_up"):
        for arguments in ((), (1,), ("no.module", ("x",))):
            try:
                getattr(sources, name)(*arguments)
            except Exception as error:
                found += frames_of(error)
    return found


def recursion():
    import gc
    import sys
    import time

    sources = __import__.__self__._sources
    calls = (
        gc.get_objects,
        lambda: time.sleep(0.0001),
        lambda: sources.keep("json", ("x",)),
        lambda: sources.find("json"),
        lambda: __import__("json"),
    )
    found = []

    def deeper(depth, call):
        if depth:
            return deeper(depth - 1, call)
        call()

    for call in calls:
        for depth in range(sys.getrecursionlimit() - 60, sys.getrecursionlimit()):
            try:
                deeper(depth, call)
            except Exception as error:
                found += frames_of(error)
    return found


def interpreter():
    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters
    try:
        interpreters.create()
    except PermissionError:
        return []
    except Exception as error:
        cause = error.__cause__ or error.__context__ or error
        return [] if "creation failed" in str(error) else [repr(cause)]
    return ["an interpreter without a hook"]


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        name = request.url.rpartition("/")[2]
        return Response(json.dumps(globals()[name]()))
"""


@pytest.mark.parametrize("name", IMPORT_WALKS)
async def test_nothing_that_serves_all_is_found(name, tmp_path, anyio_backend):
    """No import, class or interpreter of worker code's leads to the scheduler or past the hook."""
    main = tmp_path / "main.py"
    main.write_text(MAIN)
    (tmp_path / "look.py").write_text(LOOK)
    packages = tmp_path / "python_modules"
    packages.mkdir()
    (packages / "hostile_package.py").write_text(LOOK + "\nFOUND = look()\n")
    async with open_world("warm", main, limits=Limits(cpu_ms=20_000)) as world:
        answer = await world.fetch(name)
    assert answer.outcome == "ok", answer.done
    assert json.loads(answer.body) == []
