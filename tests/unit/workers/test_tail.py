"""The Tail Worker's handler with traces as the platform makes them."""

import json
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from edgesim.errors import PlatformError
from edgesim.model import TraceException, TraceItem, TraceLog
from tests.worker_world import Scripted, World, world

pytestmark = pytest.mark.anyio

REQUEST = {
    "request": {
        "url": "https://receiver.example/",
        "method": "POST",
        "headers": {"cf-connecting-ip": "192.0.2.9", "user-agent": "game/3", "cf-ipcountry": "BR"},
        "cf": {},
    }
}


def item(*lines: Any, **more: Any) -> TraceItem:
    logs = [TraceLog(5.0, "log", line if isinstance(line, list) else [line]) for line in lines]
    known: dict[str, Any] = {"script_name": "receiver", "event": REQUEST, "outcome": "ok"}
    return TraceItem(**(known | {"event_timestamp": 4.0, "logs": logs} | more))


def opened(tmp_path: Path) -> AbstractAsyncContextManager[World]:
    return world(tmp_path, scripted=Scripted())


async def tail(running: World, *items: TraceItem) -> str:
    return (await running.simulator.workers["tail"].tail(items)).outcome


async def test_one_send_a_call_in_order(tmp_path):
    """Each pipeline gets one send per call, with all records in order."""
    async with opened(tmp_path) as running:
        sends: dict[str, list[int]] = {"events": [], "errors": []}
        for name, seen in sends.items():
            _watch(running, name, seen)
        items = [
            item(f'PIPE_ME {{"n":{2 * number}}}', ["PIPE_ME", json.dumps({"n": 2 * number + 1})])
            for number in range(50)
        ]
        assert await tail(running, *items, item('PIPE_ERR {"reason":"x"}', "hello")) == "ok"
        assert sends == {"events": [100], "errors": [1]}
        assert [record["n"] for record in await running.records("events")] == list(range(100))


async def test_nothing_to_send_is_no_send(tmp_path):
    """Without records nothing is sent: no object, no invocation."""
    async with opened(tmp_path) as running:
        assert await tail(running, item("hello"), item()) == "ok"
        assert await running.records("errors") == []
        stats = await running.simulator.stats()
        assert stats["pipelines"]["errors"]["records"] == 0
        assert stats["pipelines"]["errors"]["objects"] == 0


async def test_more_than_a_pipeline_takes_at_once(tmp_path):
    """Sends are split by the bytes that the Pipeline counts, not by characters."""
    async with opened(tmp_path) as running:
        line = "PIPE_ME " + json.dumps({"text": "\u4e2d" * 60_000}, ensure_ascii=False)
        assert await tail(running, *(item(line) for _ in range(60))) == "ok"
        assert len(await running.records("events")) == 60


async def test_a_truncated_trace_is_reported(tmp_path):
    """A truncated trace is recorded with its number of records and its client."""
    async with opened(tmp_path) as running:
        assert await tail(running, item('PIPE_ME {"n":1}', truncated=True)) == "ok"
        assert await running.records("events") == [{"n": 1}]
        [record] = await running.records("errors")
        assert record["reason"] == "truncated"
        assert "after 1 records" in record["detail"]
        assert [record[key] for key in ("worker", "ip", "user_agent", "country")] == [
            *("receiver", "192.0.2.9", "game/3", "BR")
        ]


async def test_an_exception_is_recorded(tmp_path):
    """An exception is recorded with outcome, traceback and client; earlier records are kept."""
    async with opened(tmp_path) as running:
        exception = TraceException(5.0, "PythonError", "Traceback...\nValueError: no")
        failed = item('PIPE_ME {"n":1}', outcome="exception", exceptions=[exception])
        assert await tail(running, failed, item(outcome="exceededCpu", event=None)) == "ok"
        assert await running.records("events") == [{"n": 1}]
        first, second = await running.records("errors")
        assert (first["reason"], second["reason"]) == ("exception", "exceededCpu")
        assert first["detail"].endswith("ValueError: no")
        assert (first["ip"], second["ip"]) == ("192.0.2.9", "")


async def test_a_send_that_fails_costs_no_other(tmp_path):
    """If one send fails, the call fails, but the other pipeline has its records."""
    async with opened(tmp_path) as running:

        async def refuse(records: Any) -> None:
            raise PlatformError("the disk is full")

        running.simulator.primitives.pipelines["events"].send = refuse  # type: ignore[method-assign]
        assert await tail(running, item('PIPE_ME {"n":1}', 'PIPE_ERR {"n":2}')) == "exception"
        assert await running.records("errors") == [{"n": 2}]


def _watch(running: World, name: str, seen: list[int]) -> None:
    pipeline = running.simulator.primitives.pipelines[name]
    send = pipeline.send

    async def counted(records: Any) -> None:
        seen.append(len(records))
        await send(records)

    pipeline.send = counted  # type: ignore[method-assign]
