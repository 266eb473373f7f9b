"""Which module an import finds, at every level: the library's, the Worker's own, a vendored one.

``tests/portability`` compares own modules with Pyodide.
"""

import json

import pytest

from edgesim.errors import WorkerLoadError
from tests.conformance.test_isolates import Level, Recorder
from tests.isolation.world import open_world

pytestmark = pytest.mark.anyio

LEVELS = ["process", "warm", "inline"]
OF_THE_LIBRARY = ("calendar", "ipaddress", "queue", "statistics", "graphlib", "json", "types")
"""Some are imported by edgesim in an isolate (calendar, ipaddress), others are not (graphlib)."""
NOT_THERE = (
    "typing_extensions",
    "cgi",
    "curses",
    "fcntl",
    "pwd",
    "resource",
    "ssl",
    "test",
    "asgi",
    "mine",
)
"""Names that the platform's library lacks; some are modules here, imported or built in."""
SOURCE = """
import importlib
NAMES = {names}
def whose(name):
    module = importlib.import_module(name)
    other = "the library's" if getattr(module, "__file__", None) else "nobody's"
    return getattr(module, "WHOSE", other)
FOUND = {{name: whose(name) for name in NAMES}}
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response(json.dumps([FOUND, {{name: whose(name) for name in NAMES}}]))
"""


async def found(level, names, **files):
    """Where each module comes from: at import, and in a handler, of the second invocation."""
    host = Recorder(level.clock)
    async with level.load(SOURCE.format(names=names), **files) as isolates:
        await isolates.invoke(level.request(), Recorder(level.clock))
        done = await isolates.invoke(level.request(), host)
    assert done.outcome == "ok", done.exceptions
    return json.loads(host.responses[0].body)


@pytest.mark.parametrize("name", LEVELS)
async def test_own_modules(name, tmp_path):
    """The platform's library comes first, and own modules with other names come before all else."""
    names = (*OF_THE_LIBRARY, *NOT_THERE)
    files = dict.fromkeys(names, "WHOSE = 'own'\n")
    expected = dict.fromkeys(OF_THE_LIBRARY, "the library's") | dict.fromkeys(NOT_THERE, "own")
    assert await found(Level(name, tmp_path), names, **files) == [expected, expected]


@pytest.mark.parametrize("name", ["process", "warm"])
async def test_vendored_modules(name, tmp_path):
    """Vendored packages come after the library too, and before what edgesim has imported."""
    names = (*OF_THE_LIBRARY, *NOT_THERE)
    for each in names:
        package = tmp_path / "python_modules" / each
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("WHOSE = 'vendored'\n")
    expected = dict.fromkeys(names, "vendored") | dict.fromkeys(OF_THE_LIBRARY, "the library's")
    assert await found(Level(name, tmp_path), names) == [expected, expected]


@pytest.mark.parametrize("name", LEVELS)
async def test_an_own_module_comes_before_a_vendored_one(name, tmp_path):
    """Of two modules with one name, the Worker's own is imported."""
    (tmp_path / "python_modules").mkdir()
    (tmp_path / "python_modules" / "shared_name.py").write_text("WHOSE = 'vendored'\n")
    got = await found(Level(name, tmp_path), ["shared_name"], shared_name="WHOSE = 'own'\n")
    assert got == [{"shared_name": "own"}] * 2


@pytest.mark.parametrize("name", LEVELS)
async def test_a_folder_without_init_is_no_module_of_another_name(name, tmp_path):
    """A folder of data does not hide a vendored package or a module of the SDK with its name."""
    for each in ("shared_data", "asgi"):
        (tmp_path / each).mkdir()
    (tmp_path / "python_modules" / "shared_data").mkdir(parents=True)
    (tmp_path / "python_modules" / "shared_data" / "__init__.py").write_text("WHOSE = 'vendored'\n")
    expected = {"shared_data": "vendored", "asgi": "the library's"}
    assert await found(Level(name, tmp_path), list(expected)) == [expected, expected]


@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("entry", ["queue.py", "secrets.py"])
async def test_an_entry_with_a_library_name_is_refused(entry, name, tmp_path):
    """The platform would import the library's module instead of it; the error says so."""
    (tmp_path / entry).write_text("")
    with pytest.raises(WorkerLoadError, match=f"{entry} cannot be the entry.*rename the file"):
        async with open_world(name, tmp_path / entry):
            pass


@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("own", ["js", "workers", "msgspec"])
async def test_a_module_with_a_name_of_the_sdk_is_refused(own, name, tmp_path):
    """A Worker cannot replace what it needs to run."""
    with pytest.raises(WorkerLoadError, match=rf"{own}\.py has the name .*rename it"):
        async with Level(name, tmp_path).load("", **{own: ""}):
            pass


@pytest.mark.parametrize("name", LEVELS)
async def test_a_missing_name_of_a_shadowed_module_has_a_cure(name, tmp_path):
    """Without the own module, ``from statistics import table`` fails; the error names the file."""
    source = "from statistics import table\n"
    with pytest.raises(WorkerLoadError, match=r"statistics\.py is not imported.*rename it"):
        async with Level(name, tmp_path).load(source, statistics="table = {}\n"):
            pass


@pytest.mark.parametrize("name", LEVELS)
async def test_packages_without_init(name, tmp_path):
    """A folder of modules is a package: its modules, classes and data are found."""
    inner = tmp_path / "own_parts" / "deep"
    inner.mkdir(parents=True)
    (inner.parent / "shapes.py").write_text(
        "from dataclasses import dataclass\n@dataclass\nclass Point:\n    x: 'int'\n"
    )
    (inner / "more.py").write_text("from ..shapes import Point\nCOUNT = [0]\n")
    (inner / "data.txt").write_text("data")
    source = """
        import pickle, typing
        from importlib import resources
        import own_parts.shapes
        from own_parts import shapes
        from own_parts.deep import more
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                import own_parts.deep
                more.COUNT[0] += 1
                return Response(repr([
                    own_parts.shapes is shapes,
                    pickle.loads(pickle.dumps(more.Point(1))),
                    typing.get_type_hints(more.Point)["x"].__name__,
                    resources.files("own_parts.deep").joinpath("data.txt").read_text(),
                    own_parts.deep.more.COUNT,
                    own_parts.__file__,
                ]))
        """
    level = Level(name, tmp_path)
    async with level.load(source) as isolates:
        for _ in range(2):
            host = Recorder(level.clock)
            done = await isolates.invoke(level.request(), host)
            assert done.outcome == "ok", done.exceptions
            expected = b"[True, Point(x=1), 'int', 'data', [1], None]"
            assert host.responses[0].body == expected
