"""The only source of time, randomness and ids.

``replay`` passes another Clock, and the same code runs in virtual time.  Waits use anyio, whose
sleeps already follow the event loop's clock.
"""

from __future__ import annotations

import random
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

from edgesim.system import LINUX

# Saved now: at the inline level worker code runs in this process, and these are replaced.
_time, _perf_counter = time.time, time.perf_counter
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Clock:
    """Real time and real randomness; ``seed`` makes the randomness repeatable."""

    def __init__(self, seed: int | None = None) -> None:
        self.random = random.Random(seed)
        self._ahead = float("-inf")  # Unix time minus the system's steady clock
        # A subclass has its own time, which is unrelated to the machine's boot.
        self._boot_id = _read_boot_id() if type(self) is Clock else ""
        self._ahead_at_start = _time() - _perf_counter()

    def now(self) -> float:
        """Unix time in seconds; it never steps back.

        If the system's clock is set back by an hour, this one continues from its last value, so
        that an event that is due soon need not wait an hour.
        """
        steady = _perf_counter()
        self._ahead = max(self._ahead, _time() - steady)
        return steady + self._ahead

    def steady(self) -> float:
        """Unix time at the start of this process plus the seconds since: for timers.

        It keeps its pace when the system's clock is set forward or back.
        """
        return _perf_counter() + self._ahead_at_start

    def now_ms(self) -> int:
        """Unix time in whole milliseconds."""
        return int(self.now() * 1000)

    def elapsed(self) -> float:
        """Seconds on a clock that never steps back; only differences are meaningful."""
        return _perf_counter()

    def boot(self) -> tuple[str, float] | None:
        """The id of the machine's boot and the seconds since then, sleep included; None if unknown.

        These seconds pass like Unix time, but do not change when the system's clock is set.
        """
        return (self._boot_id, _boot_seconds()) if self._boot_id else None

    def datetime(self) -> datetime:
        """Current time, in UTC."""
        return datetime.fromtimestamp(self.now(), UTC)

    def hex_id(self) -> str:
        """32 random hex digits, the form of the platform's message ids and object versions."""
        return f"{self.random.getrandbits(128):032x}"

    def uuid(self) -> str:
        """A version 4 UUID."""
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def ulid(self) -> str:
        """26 characters that sort by time of creation: https://github.com/ulid/spec."""
        value = self.now_ms() << 80 | self.random.getrandbits(80)
        return "".join(_CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5))


def _boot_seconds() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _read_boot_id() -> str:
    if not LINUX:
        return ""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""
