"""Loaded modules that one invocation after another uses, as long as a proof shows no change.

Executing a Worker's modules for each invocation, and freeing them, takes longer than most handlers.
So a Namespace is reused after proof.py has shown that the invocation left nothing in it.  After any
change, and if a module holds an object whose state cannot be compared, the next invocation loads
the modules anew.

Modules are loaded for the pool outside any invocation, in steps that the scheduler has called from
C.  ``load_modules`` runs worker code, so its frame refers to nothing of the pool.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import copy_context
from typing import Any

from workers._runtime import current_env

from edgesim.isolates.guest import clock_and_random, stand_ins
from edgesim.isolates.guest.entrypoints import Entrypoints, entrypoints
from edgesim.isolates.guest.graph import Referents, outside_reference, shared_objects, walk
from edgesim.isolates.guest.module_namespace import Namespace, Sources
from edgesim.isolates.guest.proof import Proof
from edgesim.isolates.guest.sealed import sealed

SPARE_MAX = 8
"""Maximum loaded Namespaces that wait for an invocation."""
LOAD_COST = 10
"""A load for the pool costs as much as this many reuses save."""
_CREDIT_MAX = 20 * LOAD_COST


class Reusable:
    """A loaded Namespace, its entrypoints and the proof of its state."""

    __slots__ = ("classes", "entering", "entries", "lengths", "namespace", "proof")

    def __init__(self, namespace: Namespace, entries: Entrypoints) -> None:
        self.namespace = namespace
        self.entries = entries
        self.lengths = tuple(len(each) for each in namespace.growing())
        self.classes: dict[int, type] = {}
        self.proof: Proof | None = None
        self.entering = sealed(self._enter)
        """Begins an invocation in these modules; returns the entrypoints."""

    def _enter(self) -> Entrypoints:
        stand_ins.running.set(self.namespace)
        loop: Any = asyncio._get_running_loop()  # noqa: SLF001 (of the invocation, see GuestLoop)
        loop.classes.update(self.classes)
        return self.entries


def load_modules(
    sources: Sources, name: str, legacy: bool, new_env: Callable[[], Any]
) -> Reusable | None:
    """Load the modules; None if that fails or changes more than the modules.

    Then each invocation loads them itself, and reports the error.
    """
    try:
        before = _variables()
        env = current_env.set(new_env())
        namespace = Namespace(sources)
        running = stand_ins.running.set(namespace)
        with clock_and_random.global_scope():
            entries = entrypoints(namespace.load(name), legacy)
        stand_ins.running.reset(running)
        current_env.reset(env)
        return Reusable(namespace, entries) if _variables() == before else None
    except BaseException:  # noqa: BLE001 (an invocation reports it)
        return None


def _variables() -> dict[int, int]:
    """Return the context's variables and their values, by id: comparing them runs no code."""
    return {id(variable): id(value) for variable, value in copy_context().items()}


class NamespacePool:
    """The Namespaces of one process.  Worker code must never reach this object."""

    def __init__(
        self,
        suspended: Callable[[], AbstractContextManager[None]],
        frames_shut: Callable[[], AbstractContextManager[None]],
        referents: Referents,
        sources: Sources,
        load: Callable[[], Reusable | None],
    ) -> None:
        """``load``: see load_modules.  Create it before modules are loaded in this process."""
        self.refused: str | None = None
        """The reason why the modules are loaded for each invocation."""
        self._suspended = suspended
        self._frames_shut = frames_shut
        self._referents = referents
        self._load = load
        self._shared = shared_objects(sources)
        self._spare: list[Reusable] = []
        self._credit = 2 * LOAD_COST
        self._missing = 1

    @property
    def wants_one(self) -> bool:
        """True if another Namespace should be loaded for the pool."""
        return self._missing > 0 and self._credit >= LOAD_COST and self.refused is None

    def load_step(self) -> tuple[Any, ...]:
        """Return the step that loads modules, outside any invocation's context."""
        return copy_context().run, self._load

    def take(self) -> Reusable | None:
        """Return loaded modules; None if the invocation must load them."""
        if self._spare:
            return self._spare.pop()
        self._missing += self.refused is None and self._missing < SPARE_MAX
        return None

    def add(self, loaded: Reusable | None) -> bool:
        """Add newly loaded modules, if their state can be compared.  Runs no worker code.

        Their garbage must have been collected, and nothing else may refer to them.
        """
        self._missing -= 1
        self._credit -= LOAD_COST
        if loaded is None:
            self.refused = "the modules cannot be loaded outside an invocation"
            return False
        with self._suspended(), self._frames_shut():
            try:
                loaded.proof = self._proof_of(loaded)
                if loaded.proof is not None:
                    loaded.proof.close()
                    self._spare.append(loaded)
            except (RecursionError, MemoryError) as error:
                self.refused = type(error).__name__
        return self.refused is None

    def _proof_of(self, loaded: Reusable) -> Proof | None:
        roots = [loaded.namespace, *loaded.entries.values()]
        graph = walk(roots, self._shared, self._referents)
        outside = outside_reference(graph, roots, self._referents)
        if graph.unknown is not None:
            self.refused = f"a module holds a {graph.unknown}"
        elif outside is not None:
            self.refused = f"something outside the modules refers to a {outside} of theirs"
        else:
            loaded.classes = {id(each): each for each in graph.classes}
            return Proof(graph, self._referents, loaded.namespace.growing())
        return None

    def give_back(self, used: Reusable) -> bool:
        """Keep the modules of an ended invocation if nothing in them changed.

        Nothing of the invocation may be on the stack.  Runs no worker code.
        """
        with self._frames_shut():
            kept = _has_shrunk(used) and used.proof is not None and used.proof.is_unchanged()
        if kept:
            self._spare.append(used)
            self._credit = min(self._credit + 1, _CREDIT_MAX)
        else:
            self._missing += 1
        return kept


def _has_shrunk(used: Reusable) -> bool:
    """Remove what the invocation has imported late; return False if that may run worker code."""
    for entries, length in zip(used.namespace.growing(), used.lengths, strict=True):
        if type(entries) is not dict:
            return False
        for key in list(entries)[length:]:
            if type(key) is not str and type(key) is not int:
                return False
            del entries[key]
    return True


class NoPool(NamespacePool):
    """Pool of a scheduler whose invocations load the modules themselves."""

    def __init__(self) -> None:
        self.refused = "no pool"
        self._spare = []
        self._credit = self._missing = 0
