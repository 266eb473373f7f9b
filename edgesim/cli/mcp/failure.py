"""The last invocation that failed, with its cause, and the other troubles of a running project."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgesim.cli.tail import happened, texts
from edgesim.errors import UsageError, hint
from edgesim.observation.sighting import cut, iso
from edgesim.runtime.cures import cure_for

if TYPE_CHECKING:
    from edgesim.cli.mcp.node import RunningNode

SEARCHED = 1000
LINES_MAX = 30
"""Console lines of the failed invocation that are shown, the last ones."""
_FINE = {"ok", "canceled"}
_MEANINGS = {
    "exception": "the handler raised an exception",
    "exceededCpu": "the invocation used more CPU time than limits.cpu_ms allows",
    "exceededMemory": "the isolate used more memory than allowed",
    "exceededWallTime": "the invocation took longer than the platform allows",
    "internalError": "edgesim could not run the invocation; see its log",
}


async def last_failure(node: RunningNode, worker: str, text: str) -> dict[str, Any]:
    """Explain the last failed invocation, of one Worker or with a text if these are not empty."""
    known = node.project().workers
    if worker and worker not in known:
        raise UsageError(f"worker: the project has no Worker {worker!r}", hint(worker, known))
    reply = await node.get("/invocations", worker=worker, text=text, limit=SEARCHED)
    recent = reply["invocations"]
    failures = [item for item in recent if item["outcome"] not in _FINE]
    found: dict[str, Any] = {"invocations_searched": len(recent), "failure": None}
    if failures:
        alike = sum(_kind(each) == _kind(failures[0]) for each in failures)
        found |= {"failure": _explained(node, failures[0]), "failures_of_this_kind": alike}
    return found | {"also_wrong": await _troubles(node)}


def _kind(item: dict[str, Any]) -> tuple[str, str, str]:
    """The Worker, the outcome and the class of the exception: the same for repeated failures."""
    message = item["exceptions"][0]["message"] if item["exceptions"] else ""
    raised = message.rpartition("\n")[2].partition(":")[0]  # a traceback ends with the exception
    return item["scriptName"], item["outcome"], raised


def _explained(node: RunningNode, item: dict[str, Any]) -> dict[str, Any]:
    name = item["scriptName"]
    lines = list(texts(item))[: len(item["logs"])]
    workers = node.project().workers
    cures = [
        cure
        for each in item["exceptions"]
        if name in workers and (cure := cure_for(each["message"], workers[name].main))
    ]
    return {
        "id": item["id"],
        "worker": name,
        "at": iso(item["eventTimestamp"]),
        "event": happened(item),
        "outcome": item["outcome"],
        "meaning": _MEANINGS.get(item["outcome"], ""),
        "exceptions": [
            {"name": each["name"], "message": cut(each["message"]), "stack": each["stack"]}
            for each in item["exceptions"]
        ],
        "cure": cures[0] if cures else None,
        "console": [
            f"{entry['level']}: {cut(line)}"
            for entry, line in zip(item["logs"], lines, strict=True)
        ][-LINES_MAX:],
        "cpu_ms": item["cpuTime"],
        "wall_ms": item["wallTime"],
        "consequence": _consequence(node, item),
    }


def _consequence(node: RunningNode, item: dict[str, Any]) -> str | None:
    """The further way of the messages of a failed batch."""
    queue = (item["event"] or {}).get("queue")
    project = node.project()
    consumers = [
        each
        for worker in project.workers.values()
        for each in worker.settings.queues.consumers
        if each.queue == queue
    ]
    if not consumers:
        return None
    [consumer] = consumers
    end = consumer.dead_letter_queue
    then = f"go to the dead-letter queue {end}" if end else "are deleted"
    return f"its messages are delivered again, up to {consumer.max_retries} times, then {then}"


async def _troubles(node: RunningNode) -> dict[str, Any]:
    """Troubles beside failed invocations; only those that there are."""
    health = await node.get("/health")
    stats = await node.get("/stats")
    rules = (await node.get("/faults"))["rules"]
    found = {
        "failing_sinks": health.get("failing_sinks"),
        "dead_letters": {
            name: each["dead"] for name, each in stats["queues"].items() if each["dead"]
        },
        "traces_lost": stats["tail"]["lost"],
        "faults_switched_on": [each["rule"] for each in rules],
    }
    return {name: value for name, value in found.items() if value}
