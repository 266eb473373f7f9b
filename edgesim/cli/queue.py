"""edgesim queue: list queues; read, send, purge and redrive messages; pause and resume delivery.

Uses the running project if there is one, or else the state directory.
"""

from __future__ import annotations

import argparse
import json

from edgesim.cli import logs
from edgesim.cli.arguments import add_project, project_of, sentence
from edgesim.cli.operate import given, perform, show
from edgesim.errors import UsageError

_ARGUMENTS = {
    "ls": (),
    "peek": ("queue", "limit"),
    "send": ("queue", "body"),
    "pause": ("queue",),
    "resume": ("queue",),
    "purge": ("queue",),
    "redrive": ("queue", "to"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``edgesim queue``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    helps = {
        "ls": "list the queues: name, backlog, billed operations, delivered, retried, dead, paused",
        "peek": "print the oldest messages without changing them",
        "send": "send one JSON message",
        "pause": "stop the delivery of messages; messages are still stored",
        "resume": "deliver messages again",
        "purge": "delete all messages",
        "redrive": "move all messages to another queue, for example from a dead-letter queue",
    }
    for name, summary in helps.items():
        action = actions.add_parser(name, help=summary, description=sentence(summary))
        if name != "ls":
            action.add_argument("queue", help="name of the queue")
        if name == "peek":
            action.add_argument(
                "--limit", type=int, default=10, metavar="N", help="messages (default: 10)"
            )
        if name == "send":
            action.add_argument("body", help="message body, JSON")
        if name == "redrive":
            action.add_argument("--to", required=True, metavar="QUEUE", help="target queue")
        if name in {"ls", "peek"}:
            action.add_argument("--json", action="store_true", help="print a JSON list")
        add_project(action)


def run(arguments: argparse.Namespace) -> int:
    """Run the operation and print its result."""
    logs.configure(verbose=False)
    values = given(arguments, *_ARGUMENTS[arguments.action])
    if "body" in values:
        try:
            values["body"] = json.loads(values["body"])
        except (ValueError, RecursionError) as error:
            raise UsageError(f"the message is not JSON: {error}") from error
    result = perform(project_of(arguments), f"queue.{arguments.action}", values)
    show(result, as_json=getattr(arguments, "json", False))
    return 0
