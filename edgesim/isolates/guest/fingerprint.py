"""Fingerprint of containers: shows in a few C calls that nothing in them has changed.

Most invocations change no shared state, so comparing all of it with its snapshot (comparison.py)
is needed only after the fingerprint has changed.  It is exact: dicts are compared by the version
that CPython keeps of each, other objects by the identity of all that they refer to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain, repeat
from typing import Any

from edgesim.isolates.guest.comparison import are_identical
from edgesim.isolates.guest.dict_versions import marks_of

Referents = Callable[..., list[Any]]
"""``gc.get_referents``, which the audit hook refuses to worker code."""

_BORDER = (object(),)
"""Its referent separates those of two objects: none can move from one to the next unseen."""


class Fingerprint:
    """The present state of some dicts and other objects, which it keeps alive."""

    def __init__(
        self, dicts: list[dict[Any, Any]], others: Iterable[Any], referents: Referents
    ) -> None:
        """``others``: lists and functions; their own references are compared, nothing deeper."""
        self._dicts = dicts
        self._others = tuple(chain.from_iterable(zip(others, repeat(_BORDER), strict=False)))
        self._referents = referents
        self._marks = marks_of(dicts)
        self._seen = self._marks()
        self._references = referents(*self._others)

    def is_current(self) -> bool:
        """Return True if nothing has changed; runs no code of the objects."""
        return self._marks() == self._seen and are_identical(
            self._referents(*self._others), self._references
        )
