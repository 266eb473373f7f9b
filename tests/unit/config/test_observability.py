"""The receiver of telemetry: the key of edgesim.toml, variables, and keys of wrangler files."""

from pathlib import Path

import msgspec
import pytest

from edgesim.config.observability import ObservabilityConfig, export_target
from edgesim.config.wrangler import Exported, WranglerFile
from edgesim.errors import ConfigError

FILE = Path("edgesim.toml")
KEY = ObservabilityConfig("http://127.0.0.1:4318/")
NONE = ObservabilityConfig()
BASE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


def target(config, variables):
    found = export_target(FILE, config, variables)
    assert found is not None
    return found


def urls(config=NONE, **variables):
    found = export_target(FILE, config, variables)
    return None if found is None else (found.traces, found.logs)


def test_off_by_default():
    """Without a key and a variable nothing is exported."""
    assert urls() is None


def test_the_key_is_a_base_url():
    """The paths are OTLP's; the extra is required then."""
    assert urls(KEY) == ("http://127.0.0.1:4318/v1/traces", "http://127.0.0.1:4318/v1/logs")
    assert target(KEY, {}).is_required


def test_variables_go_before_the_key():
    """The base URL and those of one signal, which are used as they are."""
    assert urls(KEY, **BASE) == ("http://127.0.0.1:9/v1/traces", "http://127.0.0.1:9/v1/logs")
    assert not target(KEY, BASE).is_required
    own = {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://127.0.0.1:7/logs"}
    assert urls(**own) == (None, "http://127.0.0.1:7/logs")
    assert urls(**BASE, **own) == ("http://127.0.0.1:9/v1/traces", "http://127.0.0.1:7/logs")


def test_signals_are_turned_off():
    """OTEL_SDK_DISABLED and the exporter variables of OpenTelemetry."""
    assert urls(KEY, OTEL_SDK_DISABLED="true") is None
    assert urls(KEY, OTEL_TRACES_EXPORTER="none", OTEL_LOGS_EXPORTER="none") is None
    assert urls(KEY, OTEL_LOGS_EXPORTER="none") == ("http://127.0.0.1:4318/v1/traces", None)
    assert urls(KEY, OTEL_TRACES_EXPORTER="console,otlp")[0] is not None


@pytest.mark.parametrize(
    "url", ["", "collector:4318", "ftp://x", "http://", "http://[", "http://x:0"]
)
def test_a_wrong_key(url):
    """The error names file and key."""
    with pytest.raises(ConfigError, match=r"edgesim\.toml: observability\.otlp"):
        export_target(FILE, ObservabilityConfig(url), {})


@pytest.mark.parametrize(
    ("sampler", "argument", "rate", "follows"),
    [
        ("always_off", "", 0.0, False),
        ("traceidratio", "0.25", 0.25, False),
        ("parentbased_traceidratio", "0.5", 0.5, True),
        ("parentbased_always_off", "", 0.0, True),
        ("", "", 1.0, True),
    ],
)
def test_samplers(sampler, argument, rate, follows):
    """The samplers of OpenTelemetry that need no other program."""
    variables = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument}
    found = target(KEY, variables)
    assert (found.sample_rate, found.follows_parent, found.problems) == (rate, follows, ())


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_TRACES_SAMPLER": "jaeger_remote"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "much"},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"},
    ],
)
def test_variables_without_effect_are_named(variables):
    """An unsupported value is a warning with the variable's name, once."""
    found = target(KEY, variables)
    assert len(found.problems) == 1
    assert next(reversed(variables)) in found.problems[0]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (None, Exported()),
        ({"enabled": True}, Exported()),
        ({"enabled": False}, Exported(0, 0)),
        ({"enabled": True, "head_sampling_rate": 0.5}, Exported(0.5, 0.5)),
        ({"enabled": False, "traces": {"enabled": True}}, Exported(1, 0)),
        ({"enabled": True, "traces": {"enabled": False}}, Exported(0, 1)),
        (
            {
                "enabled": True,
                "head_sampling_rate": 0.5,
                "traces": {"head_sampling_rate": 0.25, "destinations": ["any"], "persist": False},
            },
            Exported(0.25, 0.5),
        ),
        ({"logs": {"enabled": True, "invocation_logs": False}}, Exported(1, 1, False)),
        ({"enabled": True, "redact_query_string": True}, Exported(1, 1, True, True)),
    ],
)
def test_wrangler_files(table, expected):
    """The keys of ``observability``: what none of them turns off is exported."""
    raw = {"name": "w", "main": "w.py"} | ({} if table is None else {"observability": table})
    assert msgspec.convert(raw, WranglerFile).exported == expected
