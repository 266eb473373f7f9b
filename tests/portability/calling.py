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
    """Import the worker module; its folder is where workerd puts it on ``sys.path``."""
    packages = [at for at, each in enumerate(sys.path) if "site-packages" in each]
    sys.path.insert(packages[0], folder)
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


def library_modules():
    """Return as JSON: modules of the standard library that can be imported, and the others.

    Left out: private modules, and modules whose import has side effects.
    """
    skipped = {"antigravity", "idlelib", "this"}
    found = {True: [], False: []}
    for name in sys.stdlib_module_names - skipped:
        if not name.startswith("_"):
            found[_importable(name)].append(name)
    return json.dumps([found[True], found[False]])


def _importable(name):
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True
