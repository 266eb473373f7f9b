"""The exported folder: copies of the Workers and the files that Cloudflare's tools need.

These are a pyproject.toml per Python Worker, the script, the ClickHouse proxy and the notes. No
secrets are exported: dotfiles are not copied.
"""

from __future__ import annotations

import json
import re
import shutil
from importlib.resources import files
from pathlib import Path

from edgesim.config import Project, WorkerConfig
from edgesim.config.files import read_text
from edgesim.errors import UsageError
from edgesim.export.notes import notes
from edgesim.export.script import script, uses_clickhouse
from edgesim.export.stream_files import schema_text

SCRIPT = "setup.sh"
_LEFT_AT_HOME = {"__pycache__", "node_modules", "python_modules"}
_PYPROJECT = """\
[project]
name = "{name}"
version = "0.1.0"
requires-python = ">=3.13"
dependencies = []

[dependency-groups]
dev = ["workers-py>=1.17", "workers-runtime-sdk>=1.9"]
"""


def export_cloudflare(project: Project, out: Path) -> list[Path]:
    """Write the project to ``out`` and return the files written.

    UsageError if ``out`` is not empty and not an earlier export, or has a symbolic link, which
    would lead the files elsewhere.
    """
    for path in (out, *sorted(out.rglob("*"))):
        if path.is_symlink():
            raise UsageError(
                f"{path} is a symbolic link; delete it, or name another folder (--out)"
            )
    if out.is_dir() and any(out.iterdir()) and not (out / SCRIPT).is_file():
        raise UsageError(f"{out} is not empty and not an export; name another folder (--out)")
    written = []
    for worker in project.workers.values():
        written += _worker(worker, out / worker.name, out)
        _name_streams(project, worker, out / worker.name / worker.file.name)
    if uses_clickhouse(project):
        written += _proxy(project, out / project.account.clickhouse.service)
    structured = {name: each.schema for name, each in project.account.pipelines.items()}
    structured |= {name: each.fields for name, each in project.dataflow.streams.items()}
    for name, fields in structured.items():
        if fields:
            written.append(_write(out / "streams" / f"{name}.json", schema_text(fields)))
    for name, spec in project.dataflow.pipelines.items():
        written.append(_write(out / "pipelines" / f"{name}.sql", spec.sql.strip() + "\n"))
    written.append(_write(out / SCRIPT, script(project), executable=True))
    written.append(_write(out / "NOTES.md", notes(project)))
    return written


def _worker(worker: WorkerConfig, folder: Path, out: Path) -> list[Path]:
    written = _copy(worker.file.parent, folder, out)
    if not worker.is_javascript and not (folder / "pyproject.toml").is_file():
        written.append(_write(folder / "pyproject.toml", _PYPROJECT.format(name=worker.name)))
    return written


def _name_streams(project: Project, worker: WorkerConfig, file: Path) -> None:
    """Write stream names into the copied wrangler file, under the current key.

    The script replaces the names by the ids of the account that it sets up, so an id of another
    account becomes the name, and the older key ``pipeline`` becomes ``stream``.
    """
    text = read_text(file)
    ids = {name: each.id for name, each in project.account.pipelines.items()}
    ids |= {name: each.config.id for name, each in project.dataflow.streams.items()}
    for name in {each.target for each in worker.settings.pipelines}:
        values = "|".join(re.escape(each) for each in (name, ids[name]) if each)
        key = r"""(?<![\w-])(["']?)(?:stream|pipeline)\1(\s*[:=]\s*)"""
        text = re.sub(rf"""{key}(["'])(?:{values})\3""", rf'\1stream\1\2"{name}"', text)
    _write(file, text)


def _copy(source: Path, folder: Path, out: Path) -> list[Path]:
    written = []
    for file in sorted(source.rglob("*")):
        if file.is_relative_to(out.resolve()):
            continue
        path = file.relative_to(source)
        if not file.is_file() or _stays_at_home(path) or not _leads_into(file, source):
            continue
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / path)
        written.append(folder / path)
    return written


def _leads_into(file: Path, source: Path) -> bool:
    """Return False for a symbolic link to a file that is not in the folder, or not exported."""
    found, folder = file.resolve(), source.resolve()
    return found.is_relative_to(folder) and not _stays_at_home(found.relative_to(folder))


def _stays_at_home(path: Path) -> bool:
    return any(part.startswith(".") or part in _LEFT_AT_HOME for part in path.parts)


def _proxy(project: Project, folder: Path) -> list[Path]:
    settings = {
        "name": project.account.clickhouse.service,
        "main": "proxy.js",
        "compatibility_date": max(
            worker.settings.compatibility_date for worker in project.workers.values()
        ),
        "workers_dev": False,
        "preview_urls": False,
    }
    module = files("edgesim.export").joinpath("clickhouse_proxy.js").read_text("utf-8")
    written = [
        _write(folder / "wrangler.jsonc", json.dumps(settings, indent=2) + "\n"),
        _write(folder / "proxy.js", module),
    ]
    if project.schema:
        written.append(_write(folder / "schema.sql", project.schema))
    return written


def _write(file: Path, text: str, *, executable: bool = False) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")
    if executable:
        file.chmod(0o755)
    return file
