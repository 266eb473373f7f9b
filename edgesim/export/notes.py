"""NOTES.md: differences from Cloudflare that concern the project, and the manual steps."""

from __future__ import annotations

from collections.abc import Iterator

from edgesim.config import Project
from edgesim.export.script import (
    ROLL_SECONDS_MIN,
    deployment_order,
    named_by,
    uses_clickhouse,
)


def notes(project: Project) -> str:
    """The text of NOTES.md, with the points that concern this project."""
    points = "\n".join(f"- {point}" for point in _points(project))
    return f"# Deploying to Cloudflare\n\n{_START}\n{points}\n"


_START = """\
    ./setup.sh        # npx wrangler login first; again at any time

`edgesim check` first: it finds what would fail here. What is not as it is on edgesim:
"""


def _points(project: Project) -> Iterator[str]:
    account = project.account
    service = account.clickhouse.service
    if uses_clickhouse(project):
        yield (
            f"`env` bindings to `{service}`: here a Worker of ten lines, `{service}/proxy.js`. It "
            "passes requests on to CLICKHOUSE_URL with its credentials (three secrets that the "
            "script asks for). A database in a private network: put a `vpc_services` binding into "
            f"`{service}/wrangler.jsonc` and call it in place of the global fetch."
        )
        if project.schema:
            yield (
                f"The tables: `clickhouse client --queries-file {service}/schema.sql`, once; "
                "edgesim applies it at its start, Cloudflare has no place for it."
            )
    if account.pipelines:
        yield from _pipeline_points(project)
    if project.dataflow.streams:
        yield (
            "Streams, sinks and SQL cannot be changed after their creation: the script leaves what "
            "exists as it is. Delete and create again what you change; a deleted stream loses the "
            "records that are not in a sink yet."
        )
    if any(worker.secrets for worker in project.workers.values()):
        yield "Secrets stay at home: `setup.sh` takes them from the environment or asks."
    if any(bucket.notifications for bucket in account.r2.values()):
        yield (
            "Event notifications are made last, so that nothing happens before all of it is there. "
            "The rules of a bucket must not overlap."
        )
    circle = _circle(project)
    if circle:
        yield (
            f"{' and '.join(circle)} name each other: the first deploy of one of them fails. Take "
            "the binding out of one file, run the script, put it back, run it again."
        )
    yield "`[tail]` and `[backends]` of edgesim.toml have no counterpart; Cloudflare decides."


def _pipeline_points(project: Project) -> Iterator[str]:
    missing = [name for name, each in project.account.pipelines.items() if not each.schema]
    if missing:
        yield (
            f"Streams without a schema ({', '.join(missing)}): Cloudflare stores each record under "
            "one column, `value`. Give them `[[pipelines.NAME.schema]]` in edgesim.toml and export "
            "again; a schema cannot be changed afterwards."
        )
    yield (
        "A record that breaks its stream's schema is accepted by `send` and dropped later; watch "
        "the dropped-event metrics."
    )
    yield (
        "Sinks name their objects by a UUID where edgesim has a ULID; a Worker must not read the "
        "time from the name. Look at the suffix of the first object: a Worker that tells gzip by "
        "`.gz` needs it to be there."
    )
    short = [
        name
        for name, each in project.account.pipelines.items()
        if each.max_seconds < ROLL_SECONDS_MIN
    ]
    if short:
        yield f"{', '.join(short)}: a sink rolls after {ROLL_SECONDS_MIN} s at the earliest."
    if any(each.max_rows < 10_000_000 for each in project.account.pipelines.values()):
        yield "`max_rows`: sinks roll by time and size only."


def _circle(project: Project) -> list[str]:
    """Two Workers that depend on each other, directly or not; empty if there is no cycle."""
    seen: set[str] = set()
    for name in deployment_order(project):
        seen.add(name)
        for other in named_by(project.workers[name]):
            if other in project.workers and other not in seen:
                return [name, other]
    return []
