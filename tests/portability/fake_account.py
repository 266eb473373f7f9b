"""Replaces ``npx`` and ``uv``: keeps an account and a log of the calls in a file.

Implements only what setup.sh relies on: exit status of ``info``, JSON of the lists, the form of the
notification list (wrangler's formatLabelledValues).
"""

import json
import os
import sys
from pathlib import Path

STATE = Path(os.environ["FAKE_ACCOUNT"])


def main() -> int:
    """Log and answer one call of wrangler or pywrangler; return its exit status."""
    tool, *arguments = sys.argv[1:]
    arguments = arguments[2:] if tool == "npx" else arguments[1:]  # --yes wrangler@4 | run
    state = json.loads(STATE.read_text()) if STATE.is_file() else {"log": [], "things": {}}
    state["log"].append([Path.cwd().name, *arguments])
    status = answer(state["things"], arguments)
    STATE.write_text(json.dumps(state))
    return status


def answer(things: dict[str, dict[str, list[str]]], arguments: list[str]) -> int:
    """Carry out the command and return its exit status; 64 if it is unknown."""
    match arguments:
        case ["r2", "bucket", "info", name]:
            return 0 if name in things.get("bucket", {}) else 1
        case ["queues", "info", name]:
            return 0 if name in things.get("queue", {}) else 1
        case ["r2", "bucket", "create", name]:
            return made(things, "bucket", name, [])
        case ["queues", "create", name, *options]:
            return made(things, "queue", name, options)
        case ["kv", "namespace", "list"]:
            found = things.get("namespace", {})
            print(json.dumps([{"id": f"id-of-{each}", "title": each} for each in found]))
            return 0
        case ["kv", "namespace", "create", title]:
            return made(things, "namespace", title, [])
        case ["pipelines", "streams" | "sinks" as kind, "list", *_]:
            return listed(things, kind)
        case ["pipelines", "list", *_]:
            return listed(things, "pipelines")
        case ["pipelines", "streams" | "sinks" as kind, "create", name, *options]:
            return made(things, kind, name, options)
        case ["pipelines", "create", name, *options]:
            return made(things, "pipelines", name, options)
        case ["secret", "put", name, "--name", worker]:
            return made(things, f"secret {worker}", name, [sys.stdin.read()])
        case ["secret", "list", "--name", worker]:
            print(json.dumps([{"name": name} for name in things.get(f"secret {worker}", {})]))
            return 0
        case ["r2", "bucket", "notification", "list", bucket]:
            print("Fetching notification rules...")
            for rule in things.get(f"rules {bucket}", {}).values():
                print("\n".join(["", *rule]))
            return 0
        case ["r2", "bucket", "notification", "create", bucket, *options]:
            given = dict(zip(options[::2], options[1::2], strict=True))
            rule = [
                "rule_id:     1",
                f"queue_name:  {given['--queue']}",
                f"prefix:      {given.get('--prefix', '(all prefixes)')}",
                f"suffix:      {given.get('--suffix', '(all suffixes)')}",
                "event_type:  PutObject,CompleteMultipartUpload,CopyObject",
            ]
            return made(things, f"rules {bucket}", " ".join(options), rule)
        case ["r2", "bucket", "lifecycle", "list", bucket]:
            print(f"Listing lifecycle rules for bucket '{bucket}'...")
            for name in things.get(f"lifecycle {bucket}", {}):
                print(f"name:     {name}\nenabled:  Yes\nprefix:   x\naction:   Expire objects\n")
            return 0
        case ["r2", "bucket", "lifecycle", "add", bucket, name, prefix, *options, "--force"]:
            return made(things, f"lifecycle {bucket}", name, [prefix, *options])
        case ["deploy"] | ["pywrangler", "deploy"]:
            return 0
    print(f"unexpected: {arguments}", file=sys.stderr)
    return 64


def made(things: dict[str, dict[str, list[str]]], kind: str, name: str, more: list[str]) -> int:
    """Create a thing and return 0, or 1 if it exists; a secret is overwritten."""
    if name in things.setdefault(kind, {}) and not kind.startswith("secret"):
        print(f"{kind} {name} already exists", file=sys.stderr)
        return 1
    things[kind][name] = more
    return 0


def listed(things: dict[str, dict[str, list[str]]], kind: str) -> int:
    """Print the things of that kind as JSON."""
    print(json.dumps([{"id": f"id-of-{name}", "name": name} for name in things.get(kind, {})]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
