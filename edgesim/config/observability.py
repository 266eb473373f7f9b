"""The receiver of traces and logs: one key of edgesim.toml, or OpenTelemetry's own variables.

The variables are the standard ones
(https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/); those that are
not read here are read by the OpenTelemetry SDK: headers, timeouts, compression, certificates.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from edgesim.errors import ConfigError

KEY = "observability.otlp"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
ENDPOINTS = {
    "traces": "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "logs": "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
}
PATHS = {"traces": "/v1/traces", "logs": "/v1/logs"}
_EXPORTERS = {"traces": "OTEL_TRACES_EXPORTER", "logs": "OTEL_LOGS_EXPORTER"}
_DISABLED = "OTEL_SDK_DISABLED"
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_{}_PROTOCOL")
PROTOCOL = "http/protobuf"
_QUEUE_SIZE = "OTEL_BSP_MAX_QUEUE_SIZE"
_SAMPLER, _SAMPLER_ARGUMENT = "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"
_SAMPLERS = {"always_on", "always_off", "traceidratio"}
_PARENT_BASED = "parentbased_"
SERVICE_NAME = "OTEL_SERVICE_NAME"


class ObservabilityConfig(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """``[observability]``: ``otlp`` is the base URL of an OTLP receiver (HTTP, protobuf)."""

    otlp: str | None = None


class ExportTarget(msgspec.Struct, frozen=True):
    """The receiver of telemetry: the URL for traces, that for logs; None if not exported.

    ``source`` is the key or variable that names it, ``is_required`` True for a key: the extra must
    be installed then.
    """

    traces: str | None
    logs: str | None
    source: str
    is_required: bool
    queue_size: int | None = None
    """Maximum spans, and maximum log records, that wait; None means edgesim's own maximum."""
    sample_rate: float = 1.0
    """Share of the traces of what has no rate in a wrangler file."""
    follows_parent: bool = True
    """True if a client's decision to sample is followed."""
    service: str = "edgesim"
    """Name of the service of edgesim's own spans."""
    problems: tuple[str, ...] = ()
    """Variables that have no effect, with the reason."""


def export_target(
    file: Path, config: ObservabilityConfig, variables: Mapping[str, str]
) -> ExportTarget | None:
    """Return where telemetry goes; None if nowhere.  ConfigError for an invalid key.

    Variables go before the key.
    """
    if config.otlp is not None:
        _check(file, config.otlp)
    if variables.get(_DISABLED, "").strip().lower() == "true":
        return None
    base, source = (variables.get(ENDPOINT) or "").strip(), ENDPOINT
    if not base and config.otlp is not None:
        base, source = config.otlp, KEY
    urls: dict[str, str | None] = {}
    problems: list[str] = []
    for signal, variable in ENDPOINTS.items():
        own = (variables.get(variable) or "").strip()
        url = own or (f"{base.rstrip('/')}{PATHS[signal]}" if base else None)
        exporters = (variables.get(_EXPORTERS[signal]) or "otlp").split(",")
        urls[signal] = url if "otlp" in map(str.strip, exporters) else None
        if own and not base:
            source = variable
        for name in (_PROTOCOLS[0], _PROTOCOLS[1].format(signal.upper())):
            protocol = (variables.get(name) or PROTOCOL).strip()
            if url and protocol != PROTOCOL and name not in " ".join(problems):
                problems.append(f"{name}={protocol} is not supported; {PROTOCOL} is used")
    if not any(urls.values()):
        return None
    rate, follows, problem = _sampler(variables)
    return ExportTarget(
        urls["traces"],
        urls["logs"],
        source,
        source == KEY,
        _whole(variables.get(_QUEUE_SIZE)),
        rate,
        follows,
        variables.get(SERVICE_NAME) or "edgesim",
        tuple(problems + ([problem] if problem else [])),
    )


def _check(file: Path, url: str) -> None:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        problem = f"{url!r} is no URL of an OTLP receiver, such as http://127.0.0.1:4318"
        raise ConfigError(file, KEY, problem)


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and len(text) < 10 and int(text) else None


def _sampler(variables: Mapping[str, str]) -> tuple[float, bool, str]:
    """Rate, whether the parent's decision is followed, and a problem with the variables."""
    name = (variables.get(_SAMPLER) or f"{_PARENT_BASED}always_on").strip().lower()
    plain = name.removeprefix(_PARENT_BASED)
    if plain not in _SAMPLERS:
        return 1.0, True, f"{_SAMPLER}={name} is not supported; every trace is sampled"
    follows = name.startswith(_PARENT_BASED)
    if plain != "traceidratio":
        return float(plain == "always_on"), follows, ""
    text = variables.get(_SAMPLER_ARGUMENT) or "1"
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 <= rate <= 1:
        return 1.0, follows, f"{_SAMPLER_ARGUMENT}={text} is not between 0 and 1; 1 is used"
    return rate, follows, ""
