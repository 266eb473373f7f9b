"""setup.sh: creates what wrangler files cannot declare, in Cloudflare's order; safe to repeat.

Order: buckets, queues and KV namespaces, then streams, sinks and pipelines, then the Workers, each
after the Workers it depends on, then secrets, then the event notification rules.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from edgesim.config import Project, WorkerConfig
from edgesim.config.dataflow import HttpIngestConfig
from edgesim.config.lifecycle import LifecycleRule
from edgesim.config.notifications import NotificationRule
from edgesim.config.pipelines import PipelineConfig
from edgesim.config.queues import QueueConfig
from edgesim.config.sinks import SinkConfig
from edgesim.config.wrangler import provisioned_name

_NAMESPACE_ID = re.compile("[0-9a-f]{32}")
PROXY_SECRETS = ("CLICKHOUSE_URL", "CLICKHOUSE_USER", "CLICKHOUSE_PASSWORD")
ROLL_SECONDS_MIN = 10
CATALOG_ACCESS = "${CATALOG_TOKEN:?a token that may write the catalog}"
"""The shell's value of a token that sinks with a table need, or the script's end."""

_HEAD = """\
#!/bin/sh
# Sets up the project in a Cloudflare account.  Safe to run again: what is there is kept.
#
# Wants node (npx) and uv, and a login: npx wrangler login, or CLOUDFLARE_API_TOKEN.
# A secret is taken from the environment variable of its name, else asked for once.
set -eu
cd "$(dirname "$0")"

wrangler() { npx --yes wrangler@4 "$@"; }

say() { printf '%s\\n' "$*" >&2; }

# Bucket and queue commands can tell of one by name.
bucket() {
  if wrangler r2 bucket info "$1" >/dev/null 2>&1; then say "bucket $1: there already"
  else wrangler r2 bucket create "$1"; fi
}

queue() {
  name=$1; shift
  if wrangler queues info "$name" >/dev/null 2>&1; then say "queue $name: there already"
  else wrangler queues create "$name" "$@"; fi
}

# The id of a stream, sink or pipeline by name; nothing if there is none.
id_of() {
  kind=$1 name=$2
  case $kind in pipelines) set -- ;; *) set -- "$kind" ;; esac
  wrangler pipelines "$@" list --per-page 100 --json | node -e '
    const found = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
    const list = Array.isArray(found) ? found : found.result ?? [];
    const one = list.find((each) => each.name === process.argv[1]);
    if (one) console.log(one.id);' "$name"
}

stream() {
  name=$1; shift
  if test -n "$(id_of streams "$name")"; then say "stream $name: there already"
  elif test -f "streams/$name.json"; then
    wrangler pipelines streams create "$name" --schema-file "streams/$name.json" "$@"
  else wrangler pipelines streams create "$name" "$@"; fi
}

catalog() {
  if wrangler basin catalog get "$1" >/dev/null 2>&1; then say "catalog of $1: there already"
  else wrangler basin catalog enable "$1"; fi
}

sink() {
  name=$1; shift
  if test -n "$(id_of sinks "$name")"; then say "sink $name: there already"
  else wrangler pipelines sinks create "$name" "$@"; fi
}

pipeline() {
  if test -n "$(id_of pipelines "$1")"; then say "pipeline $1: there already"
  elif test -f "pipelines/$1.sql"; then
    wrangler pipelines create "$1" --sql-file "pipelines/$1.sql"
  else wrangler pipelines create "$1" --sql "$2"; fi
}

# The id of a KV namespace by title; nothing if there is none.
namespace_id() {
  wrangler kv namespace list | node -e '
    const list = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
    const one = list.find((each) => each.title === process.argv[1]);
    if (one) console.log(one.id);' "$1"
}

namespace() {
  if test -n "$(namespace_id "$1")"; then say "namespace $1: there already"
  else wrangler kv namespace create "$1"; fi
}

# A wrangler file has a title as the id of a namespace; Cloudflare wants its own id.
bind_namespace() {
  node -e '
    const fs = require("node:fs");
    const [file, title, id] = process.argv.slice(1);
    const text = title.replace(/[^\\w]/g, (one) => "\\\\" + one);
    const key = "([\\"\\x27]?\\\\bid[\\"\\x27]?\\\\s*[:=]\\\\s*)";
    const found = new RegExp(key + "([\\"\\x27])" + text + "\\\\2", "g");
    const changed = (_, before) => before + JSON.stringify(id);
    fs.writeFileSync(file, fs.readFileSync(file, "utf8").replace(found, changed));
  ' "$1" "$2" "$(namespace_id "$2")"
}

# A wrangler file names a stream; Cloudflare wants its id.
bind_stream() {
  file=$1 name=$2 id=$(id_of streams "$2")
  sed -e "s/\\(\\"\\{0,1\\}stream\\"\\{0,1\\} *[:=] *\\"\\)$name\\"/\\1$id\\"/" "$file" >"$file.new"
  mv "$file.new" "$file"
}

deploy() {
  folder=$1; shift
  if test -f "$folder/pyproject.toml"; then (cd "$folder" && uv run pywrangler deploy "$@")
  else
    if test -f "$folder/package.json"; then (cd "$folder" && npm install); fi
    (cd "$folder" && wrangler deploy "$@")
  fi
}

secret() {
  worker=$1 name=$2
  case $name in
    [0-9]* | *[!A-Za-z0-9_]*) value= ;;  # no name of a variable
    *) eval "value=\\${$name:-}" ;;
  esac
  # shellcheck disable=SC2154  # eval has set it
  if test -n "$value"; then printf '%s' "$value" | wrangler secret put "$name" --name "$worker"
  elif wrangler secret list --name "$worker" | grep -q "\\"$name\\""; then
    say "secret $name of $worker: there already"
  else wrangler secret put "$name" --name "$worker"; fi
}

# A rule of that name that is there already stays as it is.
lifecycle() {
  bucket=$1 name=$2; shift 2
  if wrangler r2 bucket lifecycle list "$bucket" 2>/dev/null |
    awk -v name="$name" '{ $1 = $1 } $0 == "name: " name { found = 1 } END { exit !found }'
  then say "lifecycle rule $name of $bucket: there already"; return; fi
  wrangler r2 bucket lifecycle add "$bucket" "$name" "$@" --force
}

# Rules are told apart by queue, prefix, suffix and event.
notify() {
  bucket=$1 queue=$2 event=$3 prefix=$4 suffix=$5
  case $event in object-create) action=PutObject ;; *) action=DeleteObject ;; esac
  if wrangler r2 bucket notification list "$bucket" 2>/dev/null |
    awk -v RS= -v queue="$queue" -v prefix="${prefix:-(all prefixes)}" \\
      -v suffix="${suffix:-(all suffixes)}" -v action="$action" '
      function field(name,   at, line) {
        at = index($0, name ":"); if (!at) return ""
        line = substr($0, at + length(name) + 1); sub(/\\n.*/, "", line)
        gsub(/^ +| +$/, "", line); return line
      }
      field("queue_name") == queue && field("prefix") == prefix && field("suffix") == suffix &&
        index(field("event_type"), action) { found = 1 }
      END { exit !found }'
  then say "notifications of $bucket to $queue: there already"; return; fi
  set -- --event-type "$event" --queue "$queue"
  test -z "$prefix" || set -- "$@" --prefix "$prefix"
  test -z "$suffix" || set -- "$@" --suffix "$suffix"
  wrangler r2 bucket notification create "$bucket" "$@"
}
"""


def script(project: Project) -> str:
    """The text of the script."""
    parts = [
        _HEAD,
        _section("Buckets", (f"bucket {_q(name)}" for name in sorted(project.bucket_names()))),
        _section("Queues", _queues(project)),
        _section("KV namespaces", (f"namespace {_q(name)}" for name in named_namespaces(project))),
        _section("Streams, sinks and pipelines of the legacy form", _pipelines(project)),
        _section("Streams, then sinks, then the pipelines between them", _dataflow(project)),
        _section("The ids of the streams, into the wrangler files", _stream_ids(project)),
        _section("The ids of the namespaces, into the wrangler files", _namespace_ids(project)),
        _section("Workers, each after those it names", _deployments(project)),
        _section("Secrets", _secrets(project)),
        _section("Lifecycle rules", _lifecycles(project)),
        _section("Event notifications: from here on things happen", _notifications(project)),
    ]
    return "\n".join(filter(None, parts))


def deployment_order(project: Project) -> list[str]:
    """Workers, each after its service bindings and tail Workers; cycles are broken arbitrarily."""
    order: list[str] = []
    begun: set[str] = set()

    def visit(name: str) -> None:
        if name in begun or name not in project.workers:
            return
        begun.add(name)
        for other in named_by(project.workers[name]):
            visit(other)
        order.append(name)

    for name in project.workers:
        visit(name)
    return order


def named_by(worker: WorkerConfig) -> list[str]:
    """Workers that must exist before this one is deployed."""
    settings = worker.settings
    tails = [each.target for each in settings.tail_consumers]
    return [each.service for each in settings.services] + tails


def named_namespaces(project: Project) -> list[str]:
    """Ids in wrangler files that are none of Cloudflare's; the script creates their namespaces.

    A binding without an id is left out: ``wrangler deploy`` creates its namespace itself.
    """
    return sorted(
        {
            each.id
            for worker in project.workers.values()
            for each in worker.settings.kv_namespaces
            if each.id != provisioned_name(worker.name, each.binding)
            and not _NAMESPACE_ID.fullmatch(each.id)
        }
    )


def uses_clickhouse(project: Project) -> bool:
    """True if a Worker binds the ClickHouse gateway."""
    name = project.account.clickhouse.service
    return any(
        service.service == name
        for worker in project.workers.values()
        for service in worker.settings.services
    )


def _section(title: str, lines: Iterator[str]) -> str:
    body = "\n".join(lines)
    return f"# {title}.\n{body}\n" if body else ""


def _q(text: str) -> str:
    return shlex.quote(text)


def _queues(project: Project) -> Iterator[str]:
    """Dead-letter queues precede the queues that use them."""
    dead = project.dead_letter_queues()
    for name in [*sorted(dead), *sorted(project.queue_names() - dead)]:
        default = QueueConfig()
        settings = project.account.queues.get(name, default)
        options = ""
        if settings.retention_seconds != default.retention_seconds:
            options += f" --message-retention-period-secs {settings.retention_seconds:.0f}"
        if settings.delivery_delay:
            options += f" --delivery-delay-secs {settings.delivery_delay:.0f}"
        yield f"queue {_q(name)}{options}"


def _pipelines(project: Project) -> Iterator[str]:
    for name, pipeline in project.account.pipelines.items():
        yield f"stream {name} --http-enabled false"
        yield f"sink {name}_sink {_legacy_sink_options(pipeline)}"
        sql = f"INSERT INTO {name}_sink SELECT * FROM {name}"  # noqa: S608 (a script's text)
        yield f"pipeline {name} '{sql}'"


def _dataflow(project: Project) -> Iterator[str]:
    """Streams and sinks before the pipelines that connect them."""
    flow = project.dataflow
    for name, stream in flow.streams.items():
        yield f"stream {_q(name)} {http_options(stream.config.http)}"
    for bucket in sorted({sink.bucket for sink in flow.sinks.values() if sink.is_catalog}):
        yield f"catalog {_q(bucket)}"
    for name, sink in flow.sinks.items():
        yield f"sink {_q(name)} {sink_options(sink)}"
    for name in flow.pipelines:
        yield f"pipeline {_q(name)}"


def http_options(http: HttpIngestConfig) -> str:
    """Options of ``wrangler pipelines streams create`` for HTTP ingest."""
    if not http.enabled:
        return "--http-enabled false"
    options = ["--http-enabled true", f"--http-auth {str(http.auth).lower()}"]
    return " ".join([*options, *(f"--cors-origin {_q(origin)}" for origin in http.cors)])


def sink_options(sink: SinkConfig) -> str:
    """Options of ``wrangler pipelines sinks create``."""
    options = [
        f"--type {_type_of(sink)} --bucket {_q(sink.bucket)} --format {sink.format}",
        f"--compression {sink.compression} --roll-interval {sink.roll_interval:.0f}",
    ]
    if sink.is_catalog:
        options.append(f"--namespace {_q(sink.namespace)} --table {_q(sink.table)}")
        options.append(f'--catalog-token "{CATALOG_ACCESS}"')
    else:
        options.append(f"--partitioning {_q(sink.partitioning)}")
    if sink.format == "parquet":
        options.append(f"--target-row-group-size {sink.target_row_group_size}")
    if sink.roll_size is not None:
        options.append(f"--roll-size {max(round(sink.roll_size), 1)}")
    if sink.path:
        options.append(f"--path {_q(sink.path)}")
    return " \\\n  ".join(options)


def _type_of(sink: SinkConfig) -> str:
    """The type as wrangler 4.164 takes it: it refuses the newer name ``basin-catalog``."""
    return "r2-data-catalog" if sink.is_catalog else sink.type


def _legacy_sink_options(pipeline: PipelineConfig) -> str:
    options = [
        f"--type r2 --bucket {_q(pipeline.bucket)} --format json",
        f"--compression {'gzip' if pipeline.compression == 'gzip' else 'uncompressed'}",
        f"--roll-interval {max(round(pipeline.max_seconds), ROLL_SECONDS_MIN)}",
        f"--roll-size {max(round(pipeline.max_bytes / 1_000_000), 1)}",
    ]
    if pipeline.layout == "legacy":
        options.append("--partitioning 'event_date=%Y-%m-%d/hr=%H'")
    if pipeline.prefix:
        options.append(f"--path {_q(pipeline.prefix)}")
    return " \\\n  ".join(options)


def _stream_ids(project: Project) -> Iterator[str]:
    for worker in project.workers.values():
        file = f"{worker.name}/{worker.file.name}"
        for target in sorted({each.target for each in worker.settings.pipelines}):
            yield f"bind_stream {_q(file)} {target}"


def _namespace_ids(project: Project) -> Iterator[str]:
    named = named_namespaces(project)
    for worker in project.workers.values():
        file = f"{worker.name}/{worker.file.name}"
        for target in sorted({each.id for each in worker.settings.kv_namespaces} & set(named)):
            yield f"bind_namespace {_q(file)} {_q(target)}"


def _deployments(project: Project) -> Iterator[str]:
    if uses_clickhouse(project):
        yield f"(cd {_q(project.account.clickhouse.service)} && wrangler deploy)"
    environment = project.environment
    options = f" --env {_q(environment)}" if environment else ""
    for name in deployment_order(project):
        yield f"deploy {_q(name)}{options}"


def _secrets(project: Project) -> Iterator[str]:
    if uses_clickhouse(project):
        for name in PROXY_SECRETS:
            yield f"secret {_q(project.account.clickhouse.service)} {name}"
    for worker in project.workers.values():
        for name in sorted(worker.secrets):
            yield f"secret {_q(worker.name)} {_q(name)}"


def _notifications(project: Project) -> Iterator[str]:
    for name, bucket in sorted(project.account.r2.items()):
        for rule in bucket.notifications:
            yield _notification(name, rule)


def _notification(bucket: str, rule: NotificationRule) -> str:
    given = (bucket, rule.queue, rule.event, rule.prefix, rule.suffix)
    return "notify " + " ".join(map(_q, given))


def _lifecycles(project: Project) -> Iterator[str]:
    for name, bucket in sorted(project.account.r2.items()):
        for rule in bucket.lifecycle:
            if rule.enabled:
                yield _lifecycle(name, rule)


def _lifecycle(bucket: str, rule: LifecycleRule) -> str:
    given = {
        "--expire-days": rule.expire_days,
        "--expire-date": rule.expire_date,
        "--ia-transition-days": rule.ia_transition_days,
        "--ia-transition-date": rule.ia_transition_date,
        "--abort-multipart-days": rule.abort_multipart_days,
    }
    options = [
        f"{option} {value:g}" if isinstance(value, float) else f"{option} {value}"
        for option, value in given.items()
        if value is not None
    ]
    return " ".join(("lifecycle", _q(bucket), _q(rule.name), _q(rule.prefix), *options))
