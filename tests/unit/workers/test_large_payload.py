"""The large-payload Worker's handler."""

import json
from typing import Any

import pytest

from edgesim.model import HttpRequest, read_all
from tests.worker_world import Scripted, World, world

pytestmark = pytest.mark.anyio


async def post(running: World, body: bytes, method: str = "POST") -> tuple[int, bytes]:
    request = HttpRequest(method, "http://large-payload/", [], body)
    answer = await running.simulator.fetch(request, "large-payload")
    return answer.status, await read_all(answer.body)


async def test_events_go_to_the_pipeline_in_order(tmp_path):
    """More events than one send accepts are all sent, in order, before the reply."""
    events = [{"n": number, "text": "é" * 50_000} for number in range(40)]
    async with world(tmp_path, scripted=Scripted()) as running:
        assert await post(running, json.dumps(events).encode()) == (200, b"OK")
        assert running.simulator.primitives.pipelines["events"].records == 40
        assert [record["n"] for record in await running.records("events")] == list(range(40))


@pytest.mark.parametrize("body", [b"", b"{broken", b"{}", b"[1]", b'[{"a": 1}, []]', b"\xff"])
async def test_anything_else_is_refused(tmp_path, body):
    """A body that is no array of objects is 400, and nothing of it is sent."""
    async with world(tmp_path, scripted=Scripted()) as running:
        assert (await post(running, body))[0] == 400
        assert running.simulator.primitives.pipelines["events"].records == 0


async def test_only_post(tmp_path):
    """A method other than POST is 405."""
    async with world(tmp_path, scripted=Scripted()) as running:
        assert (await post(running, b"", "GET"))[0] == 405


async def test_a_pipeline_that_refuses_is_no_success(tmp_path):
    """A failed send is an error for the receiver, recorded as an exception in errors."""

    async def refuse(records: Any) -> None:
        raise OSError("the disk is full")

    async with world(tmp_path, scripted=Scripted()) as running:
        running.simulator.primitives.pipelines["events"].send = refuse  # type: ignore[method-assign]
        event = {"event": "e", "player_id": "p", "ts": 1, "props": {"text": "x" * 300_000}}
        assert (await running.post(event))[0] == 200
        reasons = [record["reason"] for record in await running.records("errors")]
        assert reasons == ["exception"]
