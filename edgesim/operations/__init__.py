"""Operator actions on the stores of a project, for the admin endpoints and the commands.

An operation takes a Simulator (its Workers need not run) and plain arguments, and returns plain
values, so that it can be requested over HTTP from a running project or applied to the state of a
stopped one.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, get_type_hints

import msgspec

from edgesim.errors import UsageError, hint
from edgesim.operations import buckets, kv, pipelines, queues
from edgesim.operations.buckets import known_bucket as known_bucket
from edgesim.operations.paging import PagedRows as PagedRows
from edgesim.operations.queues import known_queue as known_queue
from edgesim.simulator import Simulator

Operation = Callable[..., Awaitable[Any]]

OPERATIONS: dict[str, Operation] = {
    "queue.ls": queues.ls,
    "queue.peek": queues.peek,
    "queue.send": queues.send,
    "queue.pause": queues.pause,
    "queue.resume": queues.resume,
    "queue.purge": queues.purge,
    "queue.redrive": queues.redrive,
    "kv.ls": kv.ls,
    "kv.get": kv.get,
    "kv.put": kv.put,
    "kv.rm": kv.rm,
    "pipeline.roll": pipelines.roll,
    "r2.buckets": buckets.buckets,
    "r2.count": buckets.count,
    "r2.notify": buckets.notify,
    "r2.page": buckets.page,
    "r2.table": buckets.table,
    "r2.ls": buckets.ls,
    "r2.cp": buckets.cp,
    "r2.rm": buckets.rm,
    "r2.requeue": buckets.requeue,
}


async def perform(simulator: Simulator, name: str, arguments: dict[str, Any]) -> Any:
    """Run one operation; UsageError if it does not exist or is called wrongly."""
    if name not in OPERATIONS:
        raise UsageError(f"there is no operation {name!r}", hint(name, OPERATIONS))
    try:
        checked = msgspec.convert(arguments, arguments_of(name))
    except msgspec.ValidationError as error:
        raise UsageError(f"{name}: {error}") from error
    return await OPERATIONS[name](simulator, **msgspec.structs.asdict(checked))


@cache
def arguments_of(name: str) -> type[msgspec.Struct]:
    """A struct with the arguments of an operation, made from its function."""
    operation = OPERATIONS[name]
    types = get_type_hints(operation)
    _, *parameters = inspect.signature(operation).parameters.values()
    fields = [
        (each.name, types[each.name])
        if each.default is inspect.Parameter.empty
        else (each.name, types[each.name], each.default)
        for each in parameters
    ]
    title = "".join(part.title() for part in name.split("."))
    return msgspec.defstruct(f"{title}Arguments", fields, forbid_unknown_fields=True)
