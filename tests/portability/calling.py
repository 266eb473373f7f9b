"""Runs in Pyodide: loads a Worker's module afresh and calls a handler as the platform does."""

import importlib
import inspect
import json
import random
import sys

from pyodide.code import relaxed_call

from workers import python_from_rpc, python_to_rpc

random.random = lambda: 0.5  # chance is the same on both sides


def load(folder, name):
    """The worker module, its folder in front of everything else."""
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    return importlib.import_module(name)


def unload(folder):
    """Forget the modules of the folder."""
    sys.stdout.flush()
    sys.stderr.flush()
    sys.path.remove(folder)
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(folder + "/"):
            del sys.modules[name]


async def call(module, handler, ctx, env, *args):
    """The handler's result, on its way to JavaScript."""
    method = getattr(module.Default(ctx, env), handler, None)
    if not callable(method):
        raise TypeError(f"Method {handler} does not exist")
    given = [python_from_rpc(each) for each in args]
    result = relaxed_call(method, *given) if handler == "fetch" else method(*given)
    return python_to_rpc(await result if inspect.isawaitable(result) else result)


def missing_modules():
    """Modules of the standard library that cannot be imported, as JSON.

    Left out: what is private, and what does something when it is imported.
    """
    skipped = {"antigravity", "idlelib", "this"}
    names = [name for name in sys.stdlib_module_names if not name.startswith("_")]
    return json.dumps([name for name in names if name not in skipped and not _importable(name)])


def _importable(name):
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True
