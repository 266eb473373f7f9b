"""edgesim r2: list, read, write, copy and delete objects, and repeat notifications.

Uses the running project if there is one, or else the state directory.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlencode

import anyio

from edgesim.cli import logs
from edgesim.cli.arguments import add_project, project_of, sentence
from edgesim.cli.operate import given, perform, show
from edgesim.cli.requeue import requeue
from edgesim.cli.running import ask, opened, pieces, serving
from edgesim.config import Project
from edgesim.errors import RunError, UsageError
from edgesim.model import Stream

CHUNK_BYTES = 1 << 18
_OPERATIONS = {
    "ls": ("bucket", "prefix"),
    "cp": ("bucket", "key", "to_bucket", "to_key"),
    "rm": ("bucket", "key"),
    "requeue": ("bucket", "prefix", "since", "until"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``edgesim r2``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    helps = {
        "ls": "list objects, one per line, key first",
        "get": "write the content of an object to a file or standard output",
        "put": "store a file as an object and send its notifications",
        "cp": "copy an object and send its notifications",
        "rm": "delete an object",
        "requeue": "send the notifications of existing objects again",
    }
    for name, summary in helps.items():
        action = actions.add_parser(name, help=summary, description=sentence(summary))
        action.add_argument("bucket", help="name of the bucket")
        if name in {"get", "put", "cp", "rm"}:
            action.add_argument("key", help="key of the object")
        if name in {"ls", "requeue"}:
            action.add_argument("--prefix", help="only keys that begin with PREFIX")
        if name == "ls":
            action.add_argument("--json", action="store_true", help="print a JSON list")
        if name == "get":
            action.add_argument(
                "--out", type=Path, metavar="FILE", help="file (default: standard output)"
            )
        if name == "cp":
            action.add_argument("to_bucket", help="target bucket")
            action.add_argument("to_key", help="target key")
        if name == "put":
            action.add_argument("file", type=Path, help="file to store")
        if name == "requeue":
            action.add_argument(
                "--since", metavar="TIME", help="uploaded at or after TIME (ISO 8601, UTC)"
            )
            action.add_argument(
                "--until", metavar="TIME", help="uploaded before TIME (ISO 8601, UTC)"
            )
        add_project(action)


def run(arguments: argparse.Namespace) -> int:
    """Run the operation and print its result."""
    logs.configure(verbose=False)
    project = project_of(arguments)
    match arguments.action:
        case "get":
            _get(project, arguments)
        case "put":
            _put(project, arguments)
        case "requeue":
            show(requeue(project, given(arguments, *_OPERATIONS["requeue"])))
        case action:
            result = perform(project, f"r2.{action}", given(arguments, *_OPERATIONS[action]))
            show(result, as_json=getattr(arguments, "json", False))
    return 0


def _get(project: Project, arguments: argparse.Namespace) -> None:
    owner = serving(project)
    if owner is None:
        anyio.run(_get_from_state, project, arguments)
        return
    with ask(owner, _path(arguments), method="GET") as answer:
        if answer.status != 200:
            raise _refused(answer.status, answer.read())
        with _target(arguments) as out:
            for chunk in pieces(answer):
                out.write(chunk)


async def _get_from_state(project: Project, arguments: argparse.Namespace) -> None:
    from edgesim.operations import known_bucket
    from edgesim.r2.bucket import R2ObjectBody

    async with opened(project) as simulator:
        known_bucket(simulator, arguments.bucket)
        found = await simulator.primitives.bucket(arguments.bucket).get(arguments.key)
        if not isinstance(found, R2ObjectBody):
            raise UsageError(f"bucket {arguments.bucket!r} has no object {arguments.key!r}")
        with _target(arguments) as out:
            async for chunk in found.body:
                out.write(chunk)


def _put(project: Project, arguments: argparse.Namespace) -> None:
    try:
        source = arguments.file.open("rb")
    except OSError as error:
        raise UsageError(f"cannot read {arguments.file}: {error.strerror}") from error
    with source:
        owner = serving(project)
        if owner is None:
            anyio.run(_put_into_state, project, arguments, source)
            return
        with ask(owner, _path(arguments), _chunks(source), method="PUT") as answer:
            if answer.status != 200:
                raise _refused(answer.status, answer.read())


async def _put_into_state(
    project: Project, arguments: argparse.Namespace, source: BinaryIO
) -> None:
    from edgesim.operations import known_bucket

    async def chunks() -> AsyncIterator[bytes]:
        for chunk in _chunks(source):
            yield chunk

    async with opened(project) as simulator:
        known_bucket(simulator, arguments.bucket)
        await simulator.primitives.bucket(arguments.bucket).put(arguments.key, Stream(chunks()))


def _chunks(source: BinaryIO) -> Iterator[bytes]:
    while chunk := source.read(CHUNK_BYTES):
        yield chunk


def _path(arguments: argparse.Namespace) -> str:
    return f"/r2?{urlencode({'bucket': arguments.bucket, 'key': arguments.key})}"


def _refused(status: int | None, body: bytes) -> UsageError | RunError:
    text = body.decode("utf-8", "replace").strip()
    return UsageError(text) if status in {400, 404} else RunError(text)


@contextmanager
def _target(arguments: argparse.Namespace) -> Iterator[BinaryIO]:
    """Open the output for writing. A file is replaced only when the object is complete."""
    out: BinaryIO
    if arguments.out is None:
        with open(sys.stdout.fileno(), "wb", closefd=False) as out:
            yield out
        return
    if arguments.out.exists() and not arguments.out.is_file():  # a device or a pipe
        with arguments.out.open("wb") as out:
            yield out
        return
    part = arguments.out.with_name(f".{arguments.out.name}.part")
    try:
        out = part.open("wb")
    except OSError as error:
        raise UsageError(f"cannot write {arguments.out}: {error.strerror}") from error
    try:
        with out:
            yield out
        part.replace(arguments.out.resolve())
    finally:
        part.unlink(missing_ok=True)
