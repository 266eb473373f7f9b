"""Every error of edgesim, with the exit code that the command line answers for it.

ConfigError and its like carry one line that names the place and the cure.  PlatformError is what a
Worker sees when a binding refuses: its text is the platform's own.
"""

from __future__ import annotations


class EdgesimError(Exception):
    """Base of all; ``exit_code`` is the command's (1 expectation, 2 usage, 3 the run broke).

    ``cure`` is what to do about it, where whoever raised it knows.
    """

    exit_code = 3

    def __init__(self, problem: str, cure: str = "") -> None:
        super().__init__(f"{problem}; {cure}" if cure else problem)
        self.problem = problem
        self.cure = cure


class ConfigError(EdgesimError):
    """A file of the user's is wrong: which file, which key, and what to do."""

    exit_code = 2

    def __init__(self, file: object, key: str | None, problem: str) -> None:
        super().__init__(f"{file}: {key}: {problem}" if key else f"{file}: {problem}")


class UsageError(EdgesimError):
    """A command was called wrongly, or cannot run as the machine stands now."""

    exit_code = 2


class WorkerLoadError(EdgesimError):
    """A worker module failed to import or has no handlers."""

    exit_code = 2


class ExpectationError(EdgesimError):
    """A replay's outcome is not what was expected."""

    exit_code = 1


class RunError(EdgesimError):
    """The run itself broke: a backend gone, a state directory unreadable."""


class PlatformError(EdgesimError):
    """What a binding throws at the Worker: a JavaScript error class and the platform's text."""

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


def first_error(group: BaseExceptionGroup) -> EdgesimError | None:
    """The first error of ours inside what a task group raised, if that is all there is."""
    ours, rest = group.split(EdgesimError)
    if ours is None or rest is not None:
        return None
    leaf: BaseException = ours
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]
    return leaf if isinstance(leaf, EdgesimError) else None
