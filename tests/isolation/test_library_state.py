"""No `warm` invocation sees another's change to the state of library modules."""

import ast
import json
from pathlib import Path

import pytest

from edgesim.isolates.library_state import LibraryState
from tests.isolation.world import open_world

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


@pytest.mark.parametrize("name", names("honest"))
async def test_honest_use_of_the_library_keeps_the_process(world, name):
    """Imports, caches and first uses inside the library do not retire the process."""
    pid = await ask(world, "pid")
    first = await ask(world, f"honest/{name}")
    assert await ask(world, f"honest/{name}") == first
    assert await ask(world, "pid") == pid


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
