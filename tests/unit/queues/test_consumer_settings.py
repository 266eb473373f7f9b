"""Defaults and limits of a consumer's settings."""

import math

import msgspec
import pytest
from msgspec.structs import replace

from edgesim.config.consumers import ConsumerSettings
from edgesim.errors import ConfigError


def test_defaults_are_the_platforms():
    """The defaults are the platform's, not those of its local tool."""
    assert msgspec.to_builtins(ConsumerSettings()) == {
        "max_batch_size": 10,
        "max_batch_timeout": 5.0,
        "max_retries": 3,
        "retry_delay": 0.0,
        "max_concurrency": None,
        "dead_letter_queue": None,
    }


@pytest.mark.parametrize(
    ("key", "least", "most"),
    [
        ("max_batch_size", 1, 100),
        ("max_batch_timeout", 0, 60),
        ("max_retries", 0, 100),
        ("retry_delay", 0, 86_400),
        ("max_concurrency", 1, 250),
    ],
)
def test_settings_keep_to_the_platforms_limits(key, least, most):
    """The limits themselves are allowed; the error for others has key, limits and value."""
    for good in (least, most):
        assert getattr(replace(ConsumerSettings(), **{key: good}), key) == good
    for bad in (least - 1, most + 1, math.nan):
        with pytest.raises(ConfigError) as refused:
            replace(ConsumerSettings(), **{key: bad})
        text = f"queues.consumers: {key}: must be {least} to {most}, not {bad}"
        assert str(refused.value) == text


def test_unknown_and_wrong_values_are_refused_when_read():
    """A misspelt key or a value of another type fails the conversion."""
    with pytest.raises(msgspec.ValidationError, match="max_batchsize"):
        msgspec.convert({"max_batchsize": 5}, ConsumerSettings)
    with pytest.raises(msgspec.ValidationError, match="max_retries"):
        msgspec.convert({"max_retries": "3"}, ConsumerSettings)
    with pytest.raises(ConfigError, match="max_retries"):
        msgspec.convert({"max_retries": 101}, ConsumerSettings)
