"""Defaults and limits of the settings of queues and consumers."""

import json
import math
from pathlib import Path

import msgspec
import pytest

from edgesim.config import load_project
from edgesim.config.queues import ConsumerConfig, PullConfig, QueueConfig
from edgesim.errors import ConfigError

CONSUMER_LIMITS = [
    ("max_batch_size", 1, 100),
    ("max_batch_timeout", 0, 60),
    ("max_retries", 0, 100),
    ("retry_delay", 0, 86_400),
    ("max_concurrency", 1, 250),
]
QUEUE_LIMITS = [
    ("delivery_delay", 0, 86_400),
    ("retention_seconds", 60, 14 * 86_400),
    ("pull.max_batch_size", 1, 100),
    ("pull.max_retries", 0, 100),
    ("pull.retry_delay", 0, 86_400),
    ("pull.visibility_timeout_ms", 0, 43_200_000),
]
NUMBERS = {"max_batch_timeout", "retry_delay", "delivery_delay", "retention_seconds"}
"""Keys whose values may have a fraction."""


def project(folder: Path, consumer: dict[str, object], account: str = "") -> Path:
    """A project with one Worker, which consumes a queue with these settings."""
    (folder / "edgesim.toml").write_text(f'workers = ["."]\n{account}')
    (folder / "entry.py").write_text("")
    queues = {"consumers": [{"queue": "q"} | consumer]}
    settings = {"name": "a", "main": "entry.py", "queues": queues}
    (folder / "wrangler.json").write_text(json.dumps(settings))
    return folder


def refusal(folder: Path) -> str:
    """The error of a project that cannot be loaded."""
    with pytest.raises(ConfigError) as refused:
        load_project(folder)
    return str(refused.value)


def test_defaults_are_the_platforms():
    """The defaults are the platform's, not those of its local tool."""
    assert msgspec.to_builtins(ConsumerConfig("q")) == {
        "queue": "q",
        "type": "worker",
        "max_batch_size": 10,
        "max_batch_timeout": 5.0,
        "max_retries": 3,
        "retry_delay": 0.0,
        "max_concurrency": None,
        "dead_letter_queue": None,
    }
    assert msgspec.to_builtins(QueueConfig(pull=PullConfig())) == {
        "retention_seconds": 4 * 86_400,
        "delivery_delay": 0,
        "pull": {
            "max_batch_size": 5,
            "max_retries": 3,
            "retry_delay": 0.0,
            "visibility_timeout_ms": 30_000,
            "dead_letter_queue": None,
        },
    }


@pytest.mark.parametrize(("key", "least", "most"), CONSUMER_LIMITS)
def test_limits_of_a_push_consumer(tmp_path, key, least, most):
    """The limits are allowed; the error for another value names file, key, limits and value."""
    for good in (least, most):
        load_project(project(tmp_path, {key: good}))
    for bad in (least - 1, most + 1, *([most + 0.5] if key in NUMBERS else [])):
        assert refusal(project(tmp_path, {key: bad})) == (
            f"{tmp_path}/wrangler.json: queues.consumers[0].{key}: "
            f"must be {least} to {most}, not {bad}"
        )


@pytest.mark.parametrize(("key", "least", "most"), QUEUE_LIMITS)
def test_limits_of_a_queue_and_of_a_pull_consumer(tmp_path, key, least, most):
    """The same for the settings that Cloudflare keeps outside wrangler files."""
    for good in (least, most):
        load_project(project(tmp_path, {}, f"[queues.p]\n{key} = {good}\n"))
    for bad in (least - 1, most + 1, *([math.nan, math.inf] if key in NUMBERS else [])):
        said = refusal(project(tmp_path, {}, f"[queues.p]\n{key} = {bad}\n"))
        problem = f"must be {least} to {most}, not {bad}"
        if not math.isfinite(bad):
            problem = "is not a finite number; write digits"
        assert said == f"{tmp_path}/edgesim.toml: queues.p.{key}: {problem}"


def test_a_value_of_another_type(tmp_path):
    """A value of another type is refused with file and key."""
    said = refusal(project(tmp_path, {"max_retries": "3"}))
    assert "wrangler.json: queues.consumers[0].max_retries: Expected `int" in said


def test_a_queue_cannot_be_its_own_dead_letter_queue(tmp_path):
    """A dead-letter queue must be another queue, for push and for pull consumers."""
    said = refusal(project(tmp_path, {"dead_letter_queue": "q"}))
    assert "queues.consumers[0].dead_letter_queue: is the queue itself" in said
    said = refusal(project(tmp_path, {}, '[queues.p.pull]\ndead_letter_queue = "p"\n'))
    assert "queues.p.pull.dead_letter_queue: is the queue itself" in said
