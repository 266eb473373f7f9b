"""The script of ``edgesim plan``: deletes and creates what differs, in Cloudflare's order.

Pipelines are deleted before the streams and sinks that they use, and created after them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from edgesim.config import Project
from edgesim.config.flow_changes import Change
from edgesim.export.script import CATALOG_ACCESS, http_options, sink_options
from edgesim.export.stream_files import schema_text

_HEAD = """\
#!/bin/sh
# Changes streams, sinks and pipelines of a Cloudflare account.  Read it before you run it: what is
# deleted is gone.  Wants node (npx) and a login: npx wrangler login, or CLOUDFLARE_API_TOKEN.
set -eu
pipelines() { npx --yes wrangler@4 basin pipelines "$@"; }
"""
_CREATED = {"create", "recreate"}
_DELETED = {"delete", "recreate"}


def plan_script(project: Project, found: Sequence[Change]) -> str:
    """The text of the script."""
    parts = [_HEAD, *_demands(project, found), *_deletions(found), ""]
    return "\n".join([*parts, *_creations(project, found), *_notes(found)])


def _demands(project: Project, found: Sequence[Change]) -> Iterator[str]:
    """Lines that end the script before it deletes anything that it could not create again."""
    sinks = [
        (project.dataflow.sinks[each.name], each.loss)
        for each in found
        if each.kind == "sink" and each.action in _CREATED
    ]
    if any(sink.is_catalog for sink, _ in sinks):
        yield f': "{CATALOG_ACCESS}"'
    if tables := [f"{sink.namespace}.{sink.table}" for sink, loss in sinks if loss]:
        problem = f"drop {', '.join(tables)} first, then set this to yes; their rows are lost"
        yield f': "${{TABLES_DROPPED:?{problem}}}"'


def _deletions(found: Sequence[Change]) -> Iterator[str]:
    for kind in ("pipeline", "sink", "stream"):
        group = {"pipeline": "", "sink": "sinks ", "stream": "streams "}[kind]
        for each in found:
            if each.kind == kind and each.action in _DELETED:
                yield f"pipelines {group}delete {each.name} --force  # {each.reason}"


def _creations(project: Project, found: Sequence[Change]) -> Iterator[str]:
    created = [(each.kind, each.name) for each in found if each.action in _CREATED]
    flow = project.dataflow
    for kind, name in created:
        if kind == "stream":
            stream = flow.streams[name]
            schema = ""
            if stream.fields:
                yield f"cat >{name}.schema.json <<'END'\n{schema_text(stream.fields)}END"
                schema = f" --schema-file {name}.schema.json"
            yield f"pipelines streams create {name}{schema} {http_options(stream.config.http)}"
        elif kind == "sink":
            yield f"pipelines sinks create {name} {sink_options(flow.sinks[name])}"
        else:
            yield f"pipelines create {name} --sql {shlex.quote(flow.pipelines[name].sql.strip())}"


def _notes(found: Sequence[Change]) -> Iterator[str]:
    for each in found:
        if each.kind == "stream" and each.action in _CREATED:
            yield f"pipelines streams get {each.name}  # its id, for the wrangler files"
        elif each.action == "update":
            yield f"echo 'by hand: {each.kind} {each.name}: {each.reason}'"
    yield ""
