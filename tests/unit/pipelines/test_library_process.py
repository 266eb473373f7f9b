"""The process of a library: its start, and its end during a request."""

import os
import signal

import anyio
import pytest

from edgesim.errors import RunError
from edgesim.pipelines import library_process
from edgesim.pipelines.iceberg import wire
from edgesim.pipelines.iceberg.engine import IcebergEngine, TableError
from edgesim.pipelines.library_process import LibraryProcess

pytestmark = pytest.mark.anyio

REQUEST = wire.DescribeTable(b"not JSON", b"", "at")


class EndingProcess(LibraryProcess[wire.IcebergFrame]):
    """A process of a module that ends at once, without a frame."""

    def __init__(self) -> None:
        super().__init__("colour library", "colorsys", wire.FRAMES, wire.Ready)

    def _arguments(self) -> list[str]:
        return []

    def _refusal(self, answer: wire.IcebergFrame) -> None:
        return None


class StoppingEngine(IcebergEngine):
    """An engine whose process stands still with a request; ``sent`` is set then."""

    sent: anyio.Event | None = None

    async def _send(self, frame: wire.IcebergFrame) -> None:
        assert self._process is not None
        if self.sent is not None:
            os.kill(self._process.pid, signal.SIGSTOP)
        await super()._send(frame)
        if self.sent is not None:
            self.sent.set()


async def test_a_process_that_does_not_start():
    """The error names it, and nothing is left of it."""
    process = EndingProcess()
    for _ in range(2):
        with pytest.raises(RunError, match="the colour library did not start"):
            async with process._exchange():
                pass
        assert process._process is None
        assert process._stream is None


async def test_a_refused_request_leaves_the_process():
    """The next request is served by the same process."""
    engine = StoppingEngine()
    try:
        with pytest.raises(TableError):
            await engine.ask(REQUEST, wire.TableColumns)
        process = engine._process
        assert process is not None
        with pytest.raises(TableError):
            await engine.ask(REQUEST, wire.TableColumns)
        assert engine._process is process
    finally:
        await engine.close()
    assert process.returncode is not None


async def test_a_cancelled_request_ends_the_process(monkeypatch):
    """Its late answer is not taken for that of the next request, which another process serves."""
    monkeypatch.setattr(library_process, "CLOSE_SECONDS", 0.01)
    engine = StoppingEngine()
    try:
        with pytest.raises(TableError):
            await engine.ask(REQUEST, wire.TableColumns)
        process = engine._process
        assert process is not None
        engine.sent = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(engine.ask, REQUEST, wire.TableColumns)
            await engine.sent.wait()
            tasks.cancel_scope.cancel()
        assert process.returncode is not None
        engine.sent = None
        with pytest.raises(TableError):
            await engine.ask(REQUEST, wire.TableColumns)
    finally:
        await engine.close()
