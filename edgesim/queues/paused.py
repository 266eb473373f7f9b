"""The queues whose delivery an operator has paused; kept in a file, over restarts."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgesim import durable
from edgesim.errors import RunError, reason

FILE = "paused-queues.json"


class PausedQueues:
    """Names of paused queues; RunError from the constructor if the file cannot be read."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._names: set[str] = set()
        try:
            self._names = msgspec.json.decode(self._file.read_bytes(), type=set[str])
        except FileNotFoundError:
            pass
        except (OSError, msgspec.DecodeError) as error:
            problem = f"{self._file}: cannot be read: {reason(error)}"
            raise RunError(problem, "remove the file to resume all queues") from error

    def __contains__(self, queue: str) -> bool:
        return queue in self._names

    def add(self, queue: str) -> None:
        """Pause a queue, durably."""
        self._store(self._names | {queue})

    def discard(self, queue: str) -> None:
        """Resume a queue, durably."""
        self._store(self._names - {queue})

    def _store(self, names: set[str]) -> None:
        if names != self._names:
            try:
                durable.write_file(self._file, msgspec.json.encode(sorted(names)))
            except OSError as error:
                raise RunError(f"{self._file}: cannot be written: {reason(error)}") from error
            self._names = names
