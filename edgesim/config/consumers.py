"""Settings of queue consumers: one definition for configuration files and for the runtime."""

from __future__ import annotations

import msgspec

from edgesim.config.files import InvalidKeyError
from edgesim.errors import ConfigError

DELAY_SECONDS_MAX = 86_400
BATCH_SIZE_MAX = 100
VISIBILITY_MS_MAX = 12 * 3_600_000

_PUSH_LIMITS = {
    "max_batch_size": (1, BATCH_SIZE_MAX),
    "max_batch_timeout": (0, 60),
    "max_retries": (0, 100),
    "retry_delay": (0, DELAY_SECONDS_MAX),
    "max_concurrency": (1, 250),
}
_PULL_LIMITS = {
    "max_batch_size": (1, BATCH_SIZE_MAX),
    "max_retries": (0, 100),
    "retry_delay": (0, DELAY_SECONDS_MAX),
    "visibility_timeout_ms": (0, VISIBILITY_MS_MAX),
}


class ConsumerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The platform's settings of a push consumer; times in seconds.

    ``max_concurrency`` None means auto.  ConfigError for a value outside the platform's limits.
    """

    max_batch_size: int = 10
    max_batch_timeout: float = 5.0
    max_retries: int = 3
    retry_delay: float = 0.0
    max_concurrency: int | None = None
    dead_letter_queue: str | None = None

    def __post_init__(self) -> None:
        """Validate at construction, not at message 10,000."""
        _refuse(_outside(self, _PUSH_LIMITS))


class ConsumerConfig(ConsumerSettings, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """An entry of ``queues.consumers`` in a wrangler file."""

    queue: str
    type: str = "worker"

    def __post_init__(self) -> None:
        """Raise InvalidKeyError with the key; ``convert`` adds the file and the key's path."""
        if self.type != "worker":
            problem = f"{self.type!r} is not a type of consumer that a wrangler file can have"
            if self.type == "http_pull":
                problem += f"; write [queues.{self.queue}.pull] in edgesim.toml"
            raise InvalidKeyError("type", problem)
        if self.dead_letter_queue == self.queue:
            problem = "is the queue itself; name another queue"
            raise InvalidKeyError("dead_letter_queue", problem)
        if found := _outside(self, _PUSH_LIMITS):
            raise found


class PullSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The platform's settings of a pull consumer; ``retry_delay`` in seconds.

    ``max_batch_size`` and ``visibility_timeout_ms`` are the defaults of a pull that omits them.
    ConfigError for a value outside the platform's limits.
    """

    max_batch_size: int = 5
    max_retries: int = 3
    retry_delay: float = 0.0
    visibility_timeout_ms: int = 30_000
    dead_letter_queue: str | None = None

    def __post_init__(self) -> None:
        """Validate at construction, not at the first pull."""
        _refuse(_outside(self, _PULL_LIMITS))


class PullConfig(PullSettings, frozen=True):
    """``[queues.NAME.pull]`` of edgesim.toml; Cloudflare keeps it outside wrangler files."""

    def __post_init__(self) -> None:
        """Raise InvalidKeyError with the key; ``convert`` adds the file and the key's path."""
        if found := _outside(self, _PULL_LIMITS):
            raise found


def _refuse(found: InvalidKeyError | None) -> None:
    if found is not None:
        raise ConfigError("queues.consumers", found.key, found.problem)


def _outside(
    settings: msgspec.Struct, limits: dict[str, tuple[int, int]]
) -> InvalidKeyError | None:
    for key, (least, most) in limits.items():
        value = getattr(settings, key)
        if value is not None and not least <= value <= most:
            return InvalidKeyError(key, f"must be {least} to {most}, not {value}")
    return None
