"""Modules that are reused at ``warm``: no change survives, whatever was changed, and when."""

import json
import re
from pathlib import Path

import anyio
import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.isolation.world import open_world

WORKER = Path(__file__).parent / "reuse" / "worker.py"
CHANGES = WORKER.with_name("changes.py").read_text()
LEFT = re.findall(r"^def leave_(\w+)", CHANGES, re.MULTILINE)
"""Names of what an invocation can leave behind."""
EXAMPLES = 40
KINDS_SEEN = 10
CHANGES_MAX = 3
REUSES = 12
"""Enough to earn the next load of modules for reuse."""
TRIES_MAX = 100


async def text(world, path):
    answer = await world.fetch(path)
    assert answer.outcome == "ok", answer.done
    return answer.body.decode()


async def reused(world):
    """Run invocations until modules are reused, so that the next one changes reused modules."""
    loaded: list[str] = []
    while len(loaded) < REUSES or len(set(loaded[-REUSES:])) > 1:
        loaded.append(await text(world, "loaded"))
        assert len(loaded) < TRIES_MAX


@pytest.mark.anyio
async def test_modules_are_reused():
    """Invocations that change nothing run in modules that were executed once."""
    async with open_world("warm", WORKER) as world:
        loaded = {await text(world, "loaded") for _ in range(5)}
        await text(world, "state")
        await text(world, "leave/nothing")
        assert {await text(world, "loaded")} == loaded
        assert len(loaded) == 1
        await text(world, "leave/callback")
        assert await text(world, "loaded") not in loaded


@pytest.mark.anyio
async def test_concurrent_invocations_share_no_modules():
    """Each of several invocations under way has modules of its own."""
    async with open_world("warm", WORKER) as world:
        found = []

        async def visit():
            found.append(await text(world, "waiting"))

        async with anyio.create_task_group() as tasks:
            for _ in range(6):
                tasks.start_soon(visit)
        assert found == ["1"] * 6


def test_no_random_change_survives():
    """After any changes of anything that can be changed, the next invocation sees none."""
    seen: set[str] = set()
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(open_world("warm", WORKER)) as world,
    ):
        before = portal.call(text, world, "state")

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.integers(0, 2**32), st.integers(1, CHANGES_MAX))
        def check(seed, times):
            portal.call(reused, world)
            changed, visible = json.loads(portal.call(text, world, f"change/{seed}/{times}"))
            if visible and times == 1:
                seen.update(changed)
            assert portal.call(text, world, "state") == before, (seed, changed)

        check()
    # The state that is compared shows most kinds of changes: the test would see them survive.
    assert len(seen) > KINDS_SEEN, sorted(seen)


@pytest.mark.anyio
@pytest.mark.parametrize("left", LEFT)
async def test_what_is_left_behind_changes_nothing(left):
    """Code that an invocation leaves behind to run later changes no other invocation's modules.

    The first time it runs in reused modules.  Afterwards the process may have given up reuse: the
    library module that the code made it import can hold what cannot be compared.
    """
    async with open_world("warm", WORKER) as world:
        before = await text(world, "state")
        await reused(world)
        for _ in range(3):
            await world.fetch(f"leave/{left}")
            assert await text(world, "state") == before
            await text(world, "collect")
            assert await text(world, "state") == before
