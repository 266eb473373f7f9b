"""Destructors that never end, in garbage that a process at `warm` collects after an invocation."""

import pytest

from tests.isolation.world import open_world

SOURCE = """
from workers import Response, WorkerEntrypoint

kept = []

class Endless:
    def __del__(self):
        while True:
            pass

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        if request.url.endswith("/leave"):
            endless = Endless()
            endless.itself = endless
            del endless
            kept.extend([] for _ in range(5000))  # more than the collector's threshold
        return Response("ok")
"""


@pytest.mark.anyio
async def test_a_process_that_computes_for_nobody_is_killed(tmp_path):
    """The invocation that leaves the object behind ends, and the next ones are served."""
    file = tmp_path / "worker.py"
    file.write_text(SOURCE)
    async with open_world("warm", file) as world:
        for _ in range(2):
            await world.fetch("leave")
            assert (await world.fetch("next")).outcome == "ok"
