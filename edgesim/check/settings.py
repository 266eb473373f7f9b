"""Rules about wrangler files and the folder around them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from edgesim.check.findings import Finding, Level, relative
from edgesim.check.lines import line_of
from edgesim.config import WorkerConfig
from edgesim.config.files import read_table
from edgesim.config.wrangler_keys import KEYS, unknown_keys

SDK_DATE = date(2026, 4, 21)
"""From this compatibility date on, the platform uses the SDK that the project vendors."""
READ_BY_EDGESIM = frozenset({"$schema", "env", "observability", "routes", "route", "dev"})
WORKER_BYTES_MAX = 64 << 20
VARS_MAX = 128
VAR_BYTES_MAX = 5_000


def check_settings(worker: WorkerConfig, root: Path) -> Iterator[Finding]:
    """Yield the findings for dates, flags, keys, other files in the folder, and sizes."""
    file = relative(worker.file, root)
    yield from _compatibility(worker, file)
    yield from _keys(worker, file)
    yield from _files(worker, root)
    yield from _sizes(worker, file)


def _compatibility(worker: WorkerConfig, file: str) -> Iterator[Finding]:
    settings = worker.settings
    is_python = not worker.is_javascript
    if is_python and "python_workers" not in settings.compatibility_flags:
        line = line_of(worker.file, "compatibility_flags")
        problem = "without the flag `python_workers` nothing runs a Python module"
        cure = 'Add "python_workers" to `compatibility_flags`'
        yield Finding(file, line, "error", "compatibility", problem, cure)
    line = line_of(worker.file, "compatibility_date")
    if not settings.compatibility_date:
        problem = "there is no `compatibility_date`"
        cure = f'Set it to a date from "{SDK_DATE}" on' if is_python else "Set it to today's date"
        yield Finding(file, 1, "error", "compatibility", problem, cure)
        return
    given = date(*map(int, settings.compatibility_date.split("-")))
    if is_python and given < SDK_DATE:
        problem = f"before {SDK_DATE} the platform's own SDK is used, which wraps no R2 or queue"
        cure = "Set a later date, and vendor workers-runtime-sdk"
        uses = settings.r2_buckets or settings.queues.producers or settings.queues.consumers
        level: Level = "error" if uses and not settings.legacy_handlers else "warning"
        yield Finding(file, line, level, "compatibility", problem, cure)


def _keys(worker: WorkerConfig, file: str) -> Iterator[Finding]:
    for unknown in unknown_keys(read_table(worker.file)):
        # A key close to a known one is a typing error; another may be of an older wrangler version.
        level: Level = "error" if unknown.near else "warning"
        line = line_of(worker.file, unknown.key)
        cure = f"Did you mean `{unknown.near}`" if unknown.near else "Take it out"
        yield Finding(file, line, level, "unknown-key", unknown.problem, cure)
    for name, kind in worker.absent_bindings.items():
        line = max(line_of(worker.file, each, name) for each in ("binding", "name"))
        problem = f"edgesim has no `{kind}`: `env.{name}` is not there"
        cure = "Test what uses it on Cloudflare"
        yield Finding(file, line, "warning", "no-binding", problem, cure)
    left_out = set(worker.ignored_keys) - READ_BY_EDGESIM - set(worker.absent_bindings.values())
    for key in sorted(left_out & KEYS[""]):
        problem = f"`{key}` is Cloudflare's, and edgesim leaves it out"
        cure = "Test that part over there"
        yield Finding(file, line_of(worker.file, key), "warning", "left-out", problem, cure)
    for index, producer in enumerate(worker.settings.queues.producers):
        if producer.delivery_delay is not None:
            problem = f"queues.producers[{index}].delivery_delay has no effect when deployed"
            cure = f"Set `delivery_delay` of [queues.{producer.queue}] in edgesim.toml"
            line = line_of(worker.file, "delivery_delay")
            yield Finding(file, line, "warning", "left-out", problem, cure)
    for each in worker.settings.pipelines:
        if each.is_old_style:
            problem = f"`pipeline` of binding {each.binding} is the old name of `stream`"
            line = line_of(worker.file, "pipeline")
            yield Finding(file, line, "warning", "deprecated", problem, "Rename the key")


def _files(worker: WorkerConfig, root: Path) -> Iterator[Finding]:
    folder = worker.file.parent
    others = [folder / name for name in ("wrangler.toml", "wrangler.jsonc", "wrangler.json")]
    both = [each for each in others if each.is_file() and each != worker.file]
    is_python = not worker.is_javascript
    if is_python and worker.file.name == "wrangler.json":
        problem = "Cloudflare's tool for Python Workers does not read wrangler.json"
        cure = "Rename it to wrangler.jsonc"
        yield Finding(relative(worker.file, root), 1, "error", "files", problem, cure)
    for other in both:
        problem = f"{other.name} stands beside {worker.file.name}, and tools differ in which counts"
        yield Finding(relative(other, root), 1, "error", "files", problem, "Keep one of them")
    requirements = folder / "requirements.txt"
    if is_python and requirements.is_file():
        problem = "Cloudflare's tool stops where there is a requirements.txt"
        cure = "Put its lines into `dependencies` of pyproject.toml"
        yield Finding(relative(requirements, root), 1, "error", "files", problem, cure)


def _sizes(worker: WorkerConfig, file: str) -> Iterator[Finding]:
    total = sum(
        each.stat().st_size
        for each in worker.file.parent.rglob("*")
        if each.is_file() and not _is_left_at_home(each.relative_to(worker.file.parent))
    )
    if total > WORKER_BYTES_MAX:
        problem = f"{total:,} bytes of modules; at most {WORKER_BYTES_MAX:,}"
        cure = "Vendor fewer packages"
        yield Finding(file, 1, "error", "size", problem, cure)
    texts = worker.settings.vars | worker.secrets
    if len(texts) > VARS_MAX:
        problem = f"{len(texts)} variables and secrets; at most {VARS_MAX}"
        yield Finding(file, line_of(worker.file, "vars"), "error", "size", problem, "Join some")
    for name, value in worker.settings.vars.items():
        size = len((value if isinstance(value, str) else json.dumps(value)).encode())
        if size > VAR_BYTES_MAX:
            problem = f"variable {name} has {size:,} bytes; at most {VAR_BYTES_MAX:,}"
            cure = "Put it into a module, or into R2"
            yield Finding(file, line_of(worker.file, name), "error", "size", problem, cure)


def _is_left_at_home(path: Path) -> bool:
    return any(
        part.startswith(".") or part in {"__pycache__", "node_modules"} for part in path.parts
    )
