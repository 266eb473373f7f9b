"""Worker whose modules hold one of everything that can be changed.

/state describes all of it; /change makes random changes; /leave leaves code behind that makes a
change after the invocation has ended.  ``LOADED`` differs for each execution of the module.
"""

import asyncio
import gc
import json
import random
import sys
import time

import changes
import neighbour
import things
from describe import describe
from workers import Response, WorkerEntrypoint

LOADED = time.time_ns()
ROOTS = (things, neighbour, changes, sys.modules[__name__])


def state():
    hidden = {"LOADED", "Default", "__builtins__", "__spec__", "__loader__"}
    names = [set(vars(module)) - hidden for module in ROOTS]
    found = [
        {name: describe(vars(module)[name]) for name in sorted(own)}
        for module, own in zip(ROOTS, names, strict=True)
    ]
    return json.dumps([found, describe(Default), describe(builtins_of()), late()], sort_keys=True)


def builtins_of():
    names = globals()["__builtins__"]
    return [
        f"{name} {type(value).__name__} {getattr(value, '__qualname__', '')}"
        for name, value in names.items()
    ]


def late():
    """Return what an import inside a function shows."""
    import json as view

    return [sorted(vars(view)), view.dumps([1]), sorted(Base.__name__ for Base in subclasses())]


def subclasses():
    return things.Base.__subclasses__()


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        action, *words = request.url.split("/", 3)[3].split("/")
        if action == "loaded":
            return Response(str(LOADED))
        if action == "state":
            return Response(state())
        if action == "waiting":
            things.number += 1
            things.listed[1].append(1)
            await asyncio.sleep(0.01)
            return Response(str(len(things.listed[1]) - 2))
        if action == "collect":
            gc.collect()
            return Response("")
        if action == "leave":
            getattr(changes, f"leave_{words[0]}")()
            return Response("")
        before = state()
        changed = changes.change(random.Random(int(words[0])), int(words[1]))
        return Response(json.dumps([changed, differs(before)]))


def differs(before):
    try:
        return state() != before
    except Exception:  # a changed function raised it
        return True


state()  # reading the attributes of a function creates some of them
