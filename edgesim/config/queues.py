"""Settings of queues and of their consumers; the classes that run them hold these structs.

They are validated when they are created.  InvalidKeyError names the key; ``convert`` adds the file
and the key's path.
"""

from __future__ import annotations

import msgspec

from edgesim.config.files import InvalidKeyError

BATCH_SIZE_MAX = 100
DELAY_SECONDS_MAX = 86_400
VISIBILITY_MS_MAX = 12 * 3_600_000

_RANGES: dict[str, tuple[int, int]] = {
    "delivery_delay": (0, DELAY_SECONDS_MAX),
    "retention_seconds": (60, 14 * 86_400),
    "max_batch_size": (1, BATCH_SIZE_MAX),
    "max_batch_timeout": (0, 60),
    "max_concurrency": (1, 250),
    "max_retries": (0, 100),
    "retry_delay": (0, DELAY_SECONDS_MAX),
    "visibility_timeout_ms": (0, VISIBILITY_MS_MAX),
}
"""The platform's limits by key, both inclusive."""


class ConsumerConfig(msgspec.Struct, frozen=True):
    """A push consumer: an entry of ``queues.consumers`` in a wrangler file; times in seconds.

    ``max_concurrency`` None means auto.
    """

    queue: str
    max_batch_size: int = 10
    max_batch_timeout: float = 5.0
    max_retries: int = 3
    retry_delay: float = 0.0
    max_concurrency: int | None = None
    dead_letter_queue: str | None = None
    type: str = "worker"

    def __post_init__(self) -> None:
        """Validate type, dead-letter queue and limits."""
        if self.type != "worker":
            problem = f"{self.type!r} is not a type of consumer that a wrangler file can have"
            if self.type == "http_pull":
                problem += f"; write [queues.{self.queue}.pull] in edgesim.toml"
            raise InvalidKeyError("type", problem)
        if self.dead_letter_queue == "":  # wrangler accepts it, for none
            msgspec.structs.force_setattr(self, "dead_letter_queue", None)
        if self.dead_letter_queue == self.queue:
            raise InvalidKeyError("dead_letter_queue", "is the queue itself; name another queue")
        _check_ranges(self)


class PullConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A pull consumer: ``[queues.NAME.pull]`` of edgesim.toml; ``retry_delay`` in seconds.

    ``max_batch_size`` and ``visibility_timeout_ms`` are the defaults of a pull that omits them.
    Cloudflare keeps these settings outside wrangler files.
    """

    max_batch_size: int = 5
    max_retries: int = 3
    retry_delay: float = 0.0
    visibility_timeout_ms: int = 30_000
    dead_letter_queue: str | None = None

    def __post_init__(self) -> None:
        """Validate dead-letter queue and limits."""
        if self.dead_letter_queue == "":
            raise InvalidKeyError("dead_letter_queue", "is empty; name a queue, or leave it out")
        _check_ranges(self)


class QueueConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A queue: ``[queues.NAME]`` of edgesim.toml; times in seconds."""

    retention_seconds: float = 345_600
    delivery_delay: float = 0
    pull: PullConfig | None = None

    def __post_init__(self) -> None:
        """Validate the limits."""
        _check_ranges(self)


def _check_ranges(settings: msgspec.Struct) -> None:
    for key in settings.__struct_fields__:
        value = getattr(settings, key)
        if key in _RANGES and value is not None:
            least, most = _RANGES[key]
            if not least <= value <= most:
                shown = str(value).removesuffix(".0")  # a whole number may be read as a float
                raise InvalidKeyError(key, f"must be {least} to {most}, not {shown}")
