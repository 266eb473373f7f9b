"""All errors of edgesim, with their exit codes on the command line.

ConfigError and UsageError are one line that names the place and the fix.  PlatformError is raised
in a Worker when a binding refuses a call: its message is the platform's own.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EdgesimError(Exception):
    """Base class; ``exit_code`` is the command's (1 expectation, 2 usage, 3 failure of the run).

    ``cure`` is the suggested fix, if known.
    """

    exit_code = 3

    def __init__(self, problem: str, cure: str = "") -> None:
        super().__init__(f"{problem}; {cure}" if cure else problem)
        self.problem = problem
        self.cure = cure


class ConfigError(EdgesimError):
    """An invalid file of the user: which file, which key, and the fix."""

    exit_code = 2

    def __init__(self, file: object, key: str | None, problem: str) -> None:
        super().__init__(f"{file}: {key}: {problem}" if key else f"{file}: {problem}")


class UsageError(EdgesimError):
    """A command was called wrongly, or cannot run in the machine's current state."""

    exit_code = 2


class WorkerLoadError(EdgesimError):
    """A worker module failed to import or has no handlers."""

    exit_code = 2


class ExpectationError(EdgesimError):
    """A replay's outcome does not match the expectation."""

    exit_code = 1


class RunError(EdgesimError):
    """The run itself failed: a backend unavailable, a state directory unreadable."""


class PlatformError(EdgesimError):
    """An error thrown in the Worker by a binding: JavaScript error class and platform message."""

    def __init__(self, message: str, name: str = "Error") -> None:
        super().__init__(message)
        self.name = name
        self.message = message


class ClickHouseError(EdgesimError):
    """An exception of the database, with ClickHouse's own code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def hint(name: str, known: Iterable[str]) -> str:
    """The fix for an unknown name: the most similar known one, else all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"


def reason(error: Exception) -> str:
    """The text of an exception; of one of the operating system without its number and file."""
    return getattr(error, "strerror", None) or str(error)


def first_error(group: BaseExceptionGroup) -> EdgesimError | None:
    """The first EdgesimError in an exception group; None if the group has any other error."""
    ours, rest = group.split(EdgesimError)
    if ours is None or rest is not None:
        return None
    leaf: BaseException = ours
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]
    return leaf if isinstance(leaf, EdgesimError) else None
