"""No `warm` invocation sees another's change to the state of library modules."""

import ast
import json
from pathlib import Path

import pytest

from edgesim.isolates.guest.library_state import LibraryState
from tests.isolation.world import no_change_found, open_world

pytestmark = pytest.mark.anyio

LIBRARY = Path(__file__).parent / "library" / "library.py"


def names(decorator: str) -> list[str]:
    """Return the names of the Worker's functions that have the decorator."""
    return [
        each.name
        for each in ast.parse(LIBRARY.read_text()).body
        if isinstance(each, ast.FunctionDef)
        and each.decorator_list
        and ast.unparse(each.decorator_list[0]).startswith(decorator)
    ]


@pytest.fixture(scope="module")
async def world(anyio_backend):
    async with open_world("warm", LIBRARY) as opened:
        yield opened


async def ask(world, path):
    answer = await world.fetch(path)
    assert answer.outcome == "ok", answer.done
    return json.loads(answer.body)


@pytest.mark.parametrize("name", names("change("))
async def test_a_change_is_not_seen_by_the_next_invocation(world, name):
    """A registry, a default or a setting of the library has its value from before the change."""
    before = await ask(world, f"look/{name}")
    await ask(world, f"change/{name}")
    assert await ask(world, f"look/{name}") == before


BY_FILES = "use_sqlite"  # which the audit hook refuses as a whole


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.linux] if name == BY_FILES else [])
        for name in names("honest")
    ],
)
async def test_honest_use_of_the_library_keeps_the_process(world, name):
    """Imports, caches and first uses inside the library do not retire the process."""
    with no_change_found():
        first = await ask(world, f"honest/{name}")
        assert await ask(world, f"honest/{name}") == first
        await ask(world, "pid")  # the process reports a change at the latest before this answer


@pytest.mark.parametrize("name", names("later("))
async def test_a_first_use_after_the_import_keeps_the_process(world, name):
    """A pattern or a table that the library makes at its first use is no change by the Worker."""
    with no_change_found():
        for kind in ("import", "later", "later", "pid"):
            await ask(world, f"{kind}/{name}")


@pytest.mark.parametrize("versioned", [True, False])
def test_dicts_are_compared_with_and_without_versions(versioned):
    """A changed dict is detected by its version, or by its contents where it has no version."""
    import textwrap

    state = LibraryState()
    state._versioned = versioned
    state.watch("textwrap")
    assert state.changed() is None
    vars(textwrap)["mine"] = 1
    try:
        assert state.changed() == "textwrap.mine"
    finally:
        del vars(textwrap)["mine"]
    assert state.changed() is None


PACKAGE = """
import logging, warnings
logging.getLogger("pack").addHandler(logging.NullHandler())
warnings.filterwarnings("ignore", message="of pack")
class Registry:
    seen = 0
def count():
    Registry.seen += 1
"""
IMPORTING = """
import os
from workers import Response, WorkerEntrypoint

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        if request.url.endswith("changes"):
            os.environ["CHANGED"] = "1"
        import pack
        pack.count()
        return Response(f"{os.getpid()} {os.environ.get('CHANGED')}")
"""


async def test_what_an_import_sets_is_not_the_workers_doing(tmp_path):
    """A package may configure the library as it is imported, and keep state: nothing is retired.

    What the Worker itself has changed before the import retires the process all the same.
    """
    main = tmp_path / "main.py"
    main.write_text(IMPORTING)
    (tmp_path / "python_modules").mkdir()
    (tmp_path / "python_modules" / "pack.py").write_text(PACKAGE)
    async with open_world("warm", main) as opened:
        said = [(await opened.fetch(path)).body for path in ("x", "x", "x")]
        assert len(set(said)) == 1
    async with open_world("warm", main) as opened:
        first, then = [(await opened.fetch(path)).body.split() for path in ("changes", "x")]
        assert (first[1], then[1]) == (b"1", b"None")
        assert first[0] != then[0]
