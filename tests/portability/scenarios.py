"""Scenario files (TOML) as data that both sides of the proof run: one event for one Worker.

A Worker is a folder with its own wrangler file: of ``workers/``, of ``examples/``, or a probe of
the SDK under ``probes/``.  Its variables and the kinds of its bindings are read from that file; a
scenario adds the contents and the replies of the bindings.
"""

import ast
import base64
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgesim.config.wrangler import load_worker

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
NOW_MS = 1_790_000_000_000
"""Time of every event in ms since the epoch; the clock does not advance."""


def load_scenarios() -> list[dict[str, Any]]:
    """Return a plain event for each handler of each Worker, then the scenarios of every file."""
    found = [prepared("plain", each) for each in plain_events()]
    for file in sorted((HERE / "scenarios").glob("*.toml")):
        table = tomllib.loads(file.read_text("utf-8"))
        defaults = {"worker": table.get("worker")}
        # One request for each name, whose path selects the probe's function.
        asked = [{"name": each, "request": {"path": f"/{each}"}} for each in table.get("each", [])]
        given = [*asked, *table.get("scenario", [])]
        found += [prepared(file.stem, defaults | each) for each in given]
    names = [each["name"] for each in found]
    assert len(set(names)) == len(names), "two scenarios of one name"
    return found


def plain_events() -> Iterator[dict[str, Any]]:
    """Yield a plain event for each handler, so that new Workers are compared too."""
    for main in sorted([*ROOT.glob("workers/*/wrangler.*"), *ROOT.glob("examples/**/wrangler.*")]):
        worker = load_worker(main.parent)
        if worker.main.suffix != ".py":
            continue  # it runs on the platform's own runtime here too
        folder = main.parent.relative_to(ROOT)
        for handler in sorted(HANDLERS & methods(worker.main.read_text("utf-8"))):
            given = {"name": f"{folder} {handler}", "worker": str(folder), "handler": handler}
            yield given | {
                "outcome": None,
                "request": {"json": {"a": 1}},
                "batch": {"messages": [{"body": {"a": 1}}]},
                "traces": [{"logs": [{"message": ["a line"]}]}],
            }


def methods(source: str) -> set[str]:
    """Return the names of the functions in the module's classes."""
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    return {
        node.name
        for each in classes
        for node in each.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def prepared(group: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the scenario with everything that a runner needs, bytes in base64."""
    worker = load_worker(ROOT / given["worker"])
    kinds = {each.name: each for each in worker.bindings()}
    handler = given.get("handler", "fetch")
    scenario = {
        "name": f"{group}: {given['name']}",
        "main": str(worker.main.relative_to(ROOT)),
        "handler": handler,
        "outcome": given.get("outcome", "ok"),
        "vars": {name: each.value for name, each in kinds.items() if each.kind in {"text", "json"}}
        | given.get("vars", {}),
        "bindings": {
            name: binding(each.kind, given.get("bindings", {}).get(name, {}))
            for name, each in kinds.items()
            if each.kind not in {"text", "json"}
        },
        "outbound": binding("service", given.get("outbound", {})),
    }
    unknown = set(given.get("bindings", {})) - set(scenario["bindings"])
    assert not unknown, f"{scenario['name']}: no binding {unknown}"
    return scenario | EVENTS.get(handler, rpc)(given)


def binding(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the kind, contents and replies of a binding."""
    spec: dict[str, Any] = {"kind": kind} | given
    if "responses" in given:
        spec["responses"] = [each | {"body": body_of(each) or ""} for each in given["responses"]]
    if "objects" in given:
        spec["objects"] = {
            key: each | {"body": body_of(each) or ""} for key, each in given["objects"].items()
        }
    return spec


def body_of(given: dict[str, Any]) -> str | None:
    """Return text (``times`` over), json (``copies`` of it in an array) or hex as base64."""
    if "hex" in given:
        content = bytes.fromhex(given["hex"])
    elif "json" in given:
        value = given["json"]
        copies = given.get("copies")
        content = json.dumps([value] * copies if copies else value).encode()
    elif "text" in given:
        content = (given["text"] * given.get("times", 1)).encode()
    else:
        return None
    return base64.b64encode(content).decode()


def fetch(given: dict[str, Any]) -> dict[str, Any]:
    """Return a request; its method defaults to POST if it has a body, else GET."""
    request = given.get("request", {})
    body = body_of(request)
    headers = [[name, value] for name, value in request.get("headers", {}).items()]
    return {
        "request": {
            "method": request.get("method", "GET" if body is None else "POST"),
            "url": request.get("url", "https://worker.example" + request.get("path", "/")),
            "headers": headers,
            "body": body,
            "cf": request.get("cf"),
        }
    }


def queue(given: dict[str, Any]) -> dict[str, Any]:
    """Return a batch; id, attempts (1), timestamp and contentType of a message have defaults."""
    batch = given["batch"]
    messages = [
        {"id": f"m{number}", "attempts": 1, "timestamp": NOW_MS, "contentType": "json", **each}
        for number, each in enumerate(batch["messages"])
    ]
    return {"batch": {"queue": batch.get("queue", "queue"), "messages": messages}}


def tail(given: dict[str, Any]) -> dict[str, Any]:
    """Return traces; the fields that the platform always sets have defaults."""
    return {"traces": [trace(each) for each in given["traces"]]}


def trace(given: dict[str, Any]) -> dict[str, Any]:
    """Return one trace; its fields listed in ``null`` are None."""
    logs = [{"timestamp": NOW_MS, "level": "log"} | log for log in given.get("logs", [])]
    exceptions = [
        {"timestamp": NOW_MS, "name": "PythonError"} | each for each in given.get("exceptions", [])
    ]
    nothing = set(given.get("null", []))
    request = {"url": "https://r.example/", "method": "POST", "headers": {"x-probe": "1"}}
    item = {
        "scriptName": "receiver",
        "event": {"request": request, "response": {"status": 200}},
        "eventTimestamp": NOW_MS,
        "outcome": "ok",
        "truncated": False,
        "diagnosticsChannelEvents": [],
        "executionModel": "stateless",
        "cpuTime": 1,
        "wallTime": 2,
        **given,
        "logs": logs,
        "exceptions": exceptions,
    }
    item.pop("null", None)
    return item | dict.fromkeys(nothing)


def scheduled(given: dict[str, Any]) -> dict[str, Any]:
    """Return a cron event."""
    return {"controller": {"cron": "*/5 * * * *", "scheduledTime": NOW_MS}}


def rpc(given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of any other method."""
    return {"args": given.get("args", [])}


HANDLERS = {"fetch", "queue", "tail", "scheduled"}
EVENTS = {"fetch": fetch, "queue": queue, "tail": tail, "scheduled": scheduled}
