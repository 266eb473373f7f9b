"""Runs in Pyodide: loads a Worker's module afresh and calls a handler as the platform does."""

import importlib
import inspect
import json
import random
import sys

from pyodide.code import relaxed_call

from workers import python_from_rpc, python_to_rpc

random.random = lambda: 0.5  # random numbers are the same on both sides


def load(folder, name):
    """Import the worker module with its folder first on ``sys.path``."""
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    return importlib.import_module(name)


def unload(folder):
    """Remove the folder from ``sys.path`` and its modules from ``sys.modules``."""
    sys.stdout.flush()
    sys.stderr.flush()
    sys.path.remove(folder)
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(folder + "/"):
            del sys.modules[name]


async def call(module, handler, ctx, env, *args):
    """Call the handler and return its result, converted for JavaScript."""
    method = getattr(module.Default(ctx, env), handler, None)
    if not callable(method):
        raise TypeError(f"Method {handler} does not exist")
    given = [python_from_rpc(each) for each in args]
    result = relaxed_call(method, *given) if handler == "fetch" else method(*given)
    return python_to_rpc(await result if inspect.isawaitable(result) else result)


def missing_modules():
    """Return the names of the standard library's modules that cannot be imported, as JSON.

    Left out: private modules, and modules whose import has side effects.
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
