"""Prints why a pool would not reuse modules; for test_reuse_types.py.

It is a process of its own, as an isolate is: classes of the library are made immutable.
"""

from __future__ import annotations

import decimal
import gc
import json
import logging
import sys
import tempfile
import types
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from edgesim.isolates.guest.module_namespace import CodeCache, open_sources
from edgesim.isolates.guest.namespace_pool import NamespacePool, load_modules
from edgesim.isolates.guest.shared_state import freeze_types

SOURCE = """
import outside
from workers import WorkerEntrypoint
from outside import later, kept

held = {expression}


class Default(WorkerEntrypoint):
    pass
"""


def refusal(folder: Path, number: int, expression: str) -> str | None:
    """Return the reason why the module is not reused, or None."""
    name = f"module_{number}"
    (folder / f"{name}.py").write_text(SOURCE.format(expression=expression))
    sources = open_sources(CodeCache(folder))
    load = partial(load_modules, sources, name, False, lambda: None)
    pool = NamespacePool(nullcontext, nullcontext, gc.get_referents, sources, load)
    run, function = pool.load_step()
    loaded = run(function)
    gc.collect()
    pool.add(loaded)
    return pool.refused


async def later() -> None:
    """A coroutine function, for an object of its type."""


def main() -> None:
    outside = types.ModuleType("outside")
    vars(outside).update(later=later, kept=[])
    sys.modules["outside"] = outside
    for name in ("enum", "fractions", "uuid", "threading", "abc", "_md5", "decimal"):
        __import__(name)
    logging.getLogger("known")
    decimal.getcontext()  # as the import in the zygote makes it, for all forks
    expressions = json.load(sys.stdin)
    freeze_types(frozenset())
    gc.disable()
    with tempfile.TemporaryDirectory() as folder:
        found = [refusal(Path(folder), *each) for each in enumerate(expressions)]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
