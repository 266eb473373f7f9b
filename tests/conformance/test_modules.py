"""Python features that look for a class's module by name: the same at every level.

Two modules have names of their own, so that no other test's are met in this process.
"""

from __future__ import annotations

import importlib.metadata
import sys

import anyio
import pytest
from structlog.testing import capture_logs

from edgesim.isolates.guest.stand_ins import StandIn
from edgesim.model import BindingSpec
from tests.conformance.test_isolates import Level, Recorder

pytestmark = pytest.mark.anyio

LEVELS = ["process", "warm", "inline"]

SHAPES = """
import abc, enum, functools, typing
from dataclasses import KW_ONLY, dataclass, field

@dataclass
class Plain:
    name: str
    _: KW_ONLY
    tags: list[str] = field(default_factory=list)

class Row(typing.NamedTuple):
    a: int
    b: str = "b"

class Colour(enum.Enum):
    RED = 1

class Named(typing.Protocol):
    def name(self) -> str: ...

class Base(abc.ABC):
    @abc.abstractmethod
    def run(self): ...

class Typed(typing.TypedDict):
    plain: "Plain"

class Note:
    text: str
    count: int = 0

seen = []
"""
QUOTED = """
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar, Optional

@dataclass
class Event:
    name: str
    limit: ClassVar[int] = 3
    parent: Optional[Event] = None
"""
SOURCE = """
import pickle
from dataclasses import dataclass, fields
import md_quoted
import md_shapes

@dataclass
class Mine:
    x: int

def pickled(value):
    return pickle.loads(pickle.dumps(value))

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response(repr({expression}))
"""
EXPRESSIONS = [
    ("Mine(1)", "Mine(x=1)"),
    ("md_shapes.Plain('a', tags=['t'])", "Plain(name='a', tags=['t'])"),
    ("md_quoted.Event('a', md_quoted.Event('b')).parent.name", "'b'"),
    ("[each.name for each in fields(md_quoted.Event)]", "['name', 'parent']"),
    ("sorted(__import__('typing').get_type_hints(md_quoted.Event))", "['limit', 'name', 'parent']"),
    ("__import__('typing').get_type_hints(md_shapes.Typed)['plain'] is md_shapes.Plain", "True"),
    ("md_shapes.Note.__annotations__", "{'text': <class 'str'>, 'count': <class 'int'>}"),
    ("md_shapes.Row(1)", "Row(a=1, b='b')"),
    ("md_shapes.Colour['RED']", "<Colour.RED: 1>"),
    ("pickled(Mine(2))", "Mine(x=2)"),
    (
        "pickled(md_shapes.Colour.RED)",
        "<Colour.RED: 1>",
    ),
    ("pickled(md_shapes.Row(3))", "Row(a=3, b='b')"),
    ("__import__('copy').deepcopy(md_quoted.Event('c')).name", "'c'"),
    ("__import__('inspect').getmodule(md_shapes.Row).__name__", "'md_shapes'"),
    ("__import__('inspect').getsource(md_shapes.Note).splitlines()[0]", "'class Note:'"),
    ("__import__('weakref').finalize(self, print).alive", "True"),
    ("__import__('sys').modules['md_shapes'] is md_shapes", "True"),
    ("__import__('sys').modules[__name__].Mine is Mine", "True"),
    ("__import__('importlib').import_module('md_package.inner').WHERE", "'md_package.inner'"),
    (
        "__import__('importlib.resources').resources.files('md_package').joinpath('d.txt').read_text()",
        "'data'",
    ),
    ("__import__('pkgutil').get_data('md_package', 'd.txt')", "b'data'"),
    ("md_shapes.__spec__.name, md_shapes.__spec__.has_location", "('md_shapes', True)"),
]


@pytest.fixture(params=LEVELS)
def level(request, tmp_path):
    package = tmp_path / "md_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("WHERE = __name__\n")
    (package / "d.txt").write_text("data")
    return Level(request.param, tmp_path)


async def said(level, *expressions):
    """The result of each, one after another in one Worker."""
    found = []
    source = SOURCE.replace("{expression}", "eval(await request.text())")
    async with level.load(source, md_shapes=SHAPES, md_quoted=QUOTED) as isolates:
        for each in expressions:
            host = Recorder(level.clock)
            done = await isolates.invoke(level.request(body=each.encode()), host)
            assert done.outcome == "ok", (each, done.exceptions)
            found.append(host.responses[0].body.decode())
    return found


async def test_what_looks_for_its_module(level):
    """Dataclasses, type hints, pickles, resources: each finds the module of the class."""
    found = await said(level, *(expression for expression, _ in EXPRESSIONS))
    wrong = {e: got for (e, want), got in zip(EXPRESSIONS, found, strict=True) if got != want}
    assert wrong == {}


async def test_a_future_import_of_the_platform_is_not_the_workers(level):
    """Annotations are values where the module has not asked for text."""
    assert await said(level, "Mine.__annotations__") == ["{'x': <class 'int'>}"]


async def test_modules_of_one_invocation_are_not_seen_by_another(level):
    """Libraries find the running invocation's sys.modules, also while two take turns."""
    source = """
        import importlib.resources, sys
        import md_shapes
        def through_a_library():
            return importlib.import_module("inspect").getmodule(md_shapes.Row).seen
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                mark = await request.text()
                md_shapes.seen.append(mark)
                await self.env.B.fetch("http://b/", method="POST", body=mark)
                return Response(json.dumps([through_a_library(), sys.modules["md_shapes"].seen]))
        """
    both, waiting = anyio.Event(), []

    async def meet(call):
        waiting.append(call)
        if len(waiting) == 2:
            both.set()
        with anyio.fail_after(60):
            await both.wait()
        return {
            "status": 200,
            "headers": [],
            "body": b"",
            "statusText": "",
            "url": "http://b/",
            "redirected": False,
        }

    answers = {}
    async with level.load(source, BindingSpec("B", "service"), md_shapes=SHAPES) as isolates:

        async def one(mark):
            host = Recorder(level.clock, B=meet)
            done = await isolates.invoke(level.request(body=mark.encode()), host)
            assert done.outcome == "ok", done.exceptions
            answers[mark] = host.responses[0].body.decode()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one, "m1")
            tasks.start_soon(one, "m2")
    assert answers == {"m1": '[["m1"], ["m1"]]', "m2": '[["m2"], ["m2"]]'}


async def test_module_that_replaces_itself(level):
    """Imports return the object with which a module replaced itself in sys.modules."""
    replacing = """
import sys, types
class Lazy(types.ModuleType):
    def __getattr__(self, name):
        return f"lazy {name}"
sys.modules[__name__] = Lazy(__name__)
"""
    source = """
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                import md_lazy
                from md_lazy import thing
                return Response(f"{md_lazy.other} {thing}")
        """
    host = Recorder(level.clock)
    async with level.load(source, md_lazy=replacing) as isolates:
        await isolates.invoke(level.request(), host)
    assert host.responses[0].body == b"lazy other lazy thing"


async def test_own_module_named_as_a_librarys(tmp_path):
    """At inline the platform's own imports do not get a Worker's module of the same name."""
    level = Level("inline", tmp_path)
    source = """
        import syslog
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                return Response(syslog.MINE)
        """
    host = Recorder(level.clock)
    async with level.load(source, syslog="MINE = 'own'\n") as isolates:
        await isolates.invoke(level.request(), host)
    import syslog

    assert host.responses[0].body == b"own"
    assert type(sys.modules["syslog"]) is not StandIn
    assert syslog.LOG_ERR == 3


async def test_another_workers_module_is_not_imported(tmp_path):
    """At inline an import of a name that only another Worker has fails, or is the vendored one."""
    source = """
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                try:
                    import md_elsewhere
                    return Response(md_elsewhere.WHOSE)
                except ModuleNotFoundError as error:
                    return Response(str(error))
        """
    said = []
    for name in ("owner", "nobody", "vendored"):
        folder = tmp_path / name
        files = {"md_elsewhere": "WHOSE = 'own'"} if name == "owner" else {}
        packages = folder / "python_modules"
        packages.mkdir(parents=True)
        if name == "vendored":
            (packages / "md_elsewhere.py").write_text("WHOSE = 'vendored'")
        level = Level("inline", folder)
        host = Recorder(level.clock)
        async with level.load(source, **files) as isolates:
            await isolates.invoke(level.request(), host)
        said.append(host.responses[0].body.decode())
    assert said == ["own", "No module named 'md_elsewhere'", "vendored"]


@pytest.mark.parametrize("name", ["process", "warm"])
async def test_a_stand_in_that_is_replaced(name, tmp_path):
    """No other invocation gets a module put into the real sys.modules by a detour."""
    level = Level(name, tmp_path)
    source = """
        import dataclasses, inspect
        import md_shapes
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                if await request.text() == "attack":
                    found = dataclasses.dataclass.__globals__["sys"].modules
                    found["md_shapes"] = type("Evil", (type(json),), {})("md_shapes")
                    return Response("done")
                return Response(str(hasattr(inspect.getmodule(md_shapes.Row), "Row")))
        """
    answers = []
    async with level.load(source, md_shapes=SHAPES) as isolates:
        for body in (b"", b"attack", b"", b""):
            host = Recorder(level.clock)
            await isolates.invoke(level.request(body=body), host)
            answers.append(host.responses[0].body)
    assert answers == [b"True", b"done", b"True", b"True"]


def vendor(folder, name, version):
    """Install a package of one module as ``pip install --target`` does."""
    packages = folder / "python_modules"
    about = packages / f"{name}-{version}.dist-info"
    about.mkdir(parents=True)
    (packages / name).mkdir()
    (packages / name / "__init__.py").write_text(f"VERSION = {version!r}\n")
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    files = (f"{name}/__init__.py", f"{about.name}/METADATA", f"{about.name}/RECORD")
    (about / "RECORD").write_text("".join(f"{file},,\n" for file in files))


@pytest.mark.parametrize("name", ["process", "warm"])
async def test_a_package_that_edgesim_has_too(tmp_path, name):
    """The vendored version is imported, in whatever version edgesim has it."""
    vendor(tmp_path, "structlog", "0.1")
    done, host = await Level(name, tmp_path).fetch(
        """
        import structlog
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                return Response(structlog.VERSION)
        """
    )
    assert done.outcome == "ok", done.exceptions
    assert host.responses[0].body == b"0.1"


async def test_a_package_that_inline_does_not_use(tmp_path):
    """A warning names each one that edgesim has in another version, and the levels that do."""
    vendor(tmp_path, "structlog", "0.1")
    vendor(tmp_path, "only_here", "2.0")
    vendor(tmp_path, "msgspec", importlib.metadata.version("msgspec"))
    with capture_logs() as logs:
        done, host = await Level("inline", tmp_path).fetch(
            """
            import only_here, structlog
            class Default(WorkerEntrypoint):
                async def fetch(self, request):
                    return Response(only_here.VERSION)
            """
        )
    assert host.responses[0].body == b"2.0", done.exceptions
    (warning,) = [each for each in logs if each["log_level"] == "warning"]
    own = importlib.metadata.version("structlog")
    assert warning["packages"] == f"structlog 0.1 (edgesim has {own})"
    assert "process or warm" in warning["cure"]
