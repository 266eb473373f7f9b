"""The platform's side of the Iceberg process."""

from __future__ import annotations

import signal
from typing import TypeVar

from edgesim.config.iceberg_limits import IcebergLimits
from edgesim.errors import RunError
from edgesim.pipelines.iceberg import wire
from edgesim.pipelines.library_process import (
    LibraryProcess,
    ProcessEndedError,
    RequestRefusedError,
)
from edgesim.pipelines.process_limits import OUT_OF_MEMORY

_TIME = "it needs more than the CPU time of a request (iceberg.request_cpu_seconds)"
_MEMORY = "it needs more than the memory of a request (iceberg.memory_bytes)"
_REASONS = {
    -signal.SIGPROF: _TIME,
    -signal.SIGALRM: "it did not end",
    OUT_OF_MEMORY: _MEMORY,
    -signal.SIGABRT: _MEMORY,  # by which pyarrow ends if it cannot get memory
}

T = TypeVar("T", bound=wire.IcebergFrame)


class TableError(RequestRefusedError):
    """The metadata of a table cannot be made as asked; ``kind`` is that of ``TableRefused``."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class IcebergEngine(LibraryProcess[wire.IcebergFrame]):
    """One process for all tables."""

    def __init__(self, limits: IcebergLimits | None = None) -> None:
        module = "edgesim.pipelines.iceberg.process"
        super().__init__("Iceberg process", module, wire.FRAMES, wire.Ready)
        self._limits = limits or IcebergLimits()

    async def ask(self, request: wire.IcebergFrame, answer: type[T]) -> T:
        """Send a request and return its answer; TableError if it is refused.

        RunError if the process ends meanwhile, as it does beyond a limit.
        """
        try:
            async with self._exchange():
                await self._send(request)
                return await self._receive(answer)
        except ProcessEndedError as error:
            again = f"{error}; the next request starts it anew"
            reason = _REASONS.get(error.status or 0, again)
            problem = f"the Iceberg process ended during {type(request).__name__}: {reason}"
            raise RunError(problem) from error

    def _arguments(self) -> list[str]:
        return [str(self._limits.memory_bytes), str(self._limits.request_cpu_seconds)]

    def _refusal(self, answer: wire.IcebergFrame) -> TableError | None:
        if isinstance(answer, wire.TableRefused):
            return TableError(answer.kind, answer.message)
        return None
