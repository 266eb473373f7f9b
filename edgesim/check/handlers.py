"""Rules about the ``Default`` class: its handlers, their parameters and their configuration.

The platform calls every handler except fetch with three arguments, whatever its signature.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from edgesim.check.findings import Finding, relative
from edgesim.check.lines import line_of
from edgesim.check.sources import Source, dotted
from edgesim.config import Project, WorkerConfig
from edgesim.config.wrangler import NO_GLOBAL_HANDLERS

STRICT = {"queue": "batch", "tail": "events", "scheduled": "controller"}
_LEGACY = {
    "on_fetch": "fetch",
    "on_queue": "queue",
    "on_scheduled": "scheduled",
    "on_trace": "tail",
}
"""Module-level handlers, which are called before NO_GLOBAL_HANDLERS."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


def default_class(source: Source) -> ast.ClassDef | None:
    """The module's ``Default`` class, which the platform looks up; None without one."""
    classes = [node for node in source.tree.body if isinstance(node, ast.ClassDef)]
    return next((each for each in classes if each.name == "Default"), None)


def methods(node: ast.ClassDef | None) -> dict[str, Function]:
    """Methods of the class by name; empty for None."""
    body = node.body if node is not None else []
    return {each.name: each for each in body if isinstance(each, Function)}


def handled(worker: WorkerConfig, main: Source) -> set[str]:
    """Names of the handlers that the platform finds in the Worker's main module."""
    names = set(methods(default_class(main)))
    if not worker.settings.legacy_handlers:
        return names
    legacy = {_LEGACY[each.name] for each in _module_level(main)}
    return legacy or (names - {"fetch"} | ({"fetch"} if "on_fetch" in names else set()))


def _module_level(main: Source) -> list[Function]:
    """Functions of the module that have names of module-level handlers."""
    functions = [each for each in main.tree.body if isinstance(each, Function)]
    return [each for each in functions if each.name in _LEGACY]


def check_handlers(worker: WorkerConfig, main: Source, root: Path) -> Iterator[Finding]:
    """Yield the findings for the ``Default`` class of ``main`` and its handlers."""
    file = relative(main.file, root)
    default = default_class(main)
    legacy = _module_level(main)
    for node in legacy:
        if worker.settings.legacy_handlers and default is None:
            continue
        problem = f"module-level {node.name} is not called since compatibility date 2025-08-14"
        if worker.settings.legacy_handlers:
            problem = f"module-level {node.name} and class Default are two default entrypoints"
        cure = f"Make it {_LEGACY[node.name]} of class Default(WorkerEntrypoint)"
        yield Finding(file, node.lineno, "error", "handler", problem, cure)
    if default is None:
        if main.error is None and not legacy and not _imports_default(main.tree):
            problem = "no class Default(WorkerEntrypoint) in the module that `main` names"
            cure = "Write the handlers as methods of one"
            yield Finding(file, 1, "error", "handler", problem, cure)
        return
    yield from _fetch_name(worker, file, methods(default))
    for name, function in methods(default).items():
        if name in STRICT:
            yield from _strict(file, name, function)
        elif name == "__init__":
            yield from _init(file, function)


def _fetch_name(
    worker: WorkerConfig, file: str, functions: dict[str, Function]
) -> Iterator[Finding]:
    """The fetch handler of the class has the name that the compatibility date asks for."""
    legacy = worker.settings.legacy_handlers
    wrong, right = ("fetch", "on_fetch") if legacy else ("on_fetch", "fetch")
    if wrong not in functions or right in functions:
        return
    since = "before" if legacy else "since"
    problem = f"{since} compatibility date {NO_GLOBAL_HANDLERS} {right} is called, not {wrong}"
    cure = "Set a later date" if legacy else f"Rename it to {right}"
    yield Finding(file, functions[wrong].lineno, "error", "handler", problem, cure)


def _imports_default(tree: ast.Module) -> bool:
    return any(
        (each.asname or each.name) == "Default"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for each in node.names
    )


def _strict(file: str, name: str, function: Function) -> Iterator[Finding]:
    arguments = function.args
    names = [*arguments.posonlyargs, *arguments.args]
    required = len(names) - len(arguments.defaults)
    most = len(names) if arguments.vararg is None else 4
    missing = [
        each.arg
        for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if default is None
    ]
    if required <= 4 <= most and not missing:
        return
    problem = f"{name} is called with three arguments, which this signature does not take"
    cure = f"Write `async def {name}(self, {STRICT[name]}, env=None, ctx=None)`"
    yield Finding(file, function.lineno, "error", "handler", problem, cure)


def _init(file: str, function: Function) -> Iterator[Finding]:
    calls = [dotted(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)]
    inner = [node for node in ast.walk(function) if isinstance(node, ast.Attribute)]
    if any(each.attr == "__init__" for each in inner) or "super().__init__" in calls:
        return
    problem = "an __init__ that leaves out super().__init__(ctx, env): self.env and self.ctx miss"
    yield Finding(
        file, function.lineno, "error", "handler", problem, "Call super().__init__(ctx, env)"
    )


def entrypoints(source: Source) -> set[str]:
    """Return the class names that service bindings may use, and all names that are imported."""
    found: set[str] = set()
    kinds = {"WorkerEntrypoint"}
    for node in source.tree.body:
        if isinstance(node, ast.ClassDef):
            if kinds & {(dotted(base) or "").rpartition(".")[2] for base in node.bases}:
                found.add(node.name)
                kinds.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            names = {each.asname or each.name for each in node.names} - {"WorkerEntrypoint"}
            found |= names
            kinds |= names
    return found


def check_entrypoints(project: Project, there: dict[str, Source]) -> Iterator[Finding]:
    """A class that a service binding names is in the main module of that Worker."""
    for worker in project.workers.values():
        for service in worker.settings.services:
            main = there.get(service.service)
            name = service.target_class
            if main is None or main.error is not None or name == "Default":
                continue
            if not {name, "*"} & entrypoints(main):
                classes = [each.name for each in main.tree.body if isinstance(each, ast.ClassDef)]
                problem = f"Worker {service.service} has no class {name}(WorkerEntrypoint)"
                cure = f"Name one that {main.file.name} has: {', '.join(classes) or 'none yet'}"
                line = line_of(worker.file, "entrypoint", name)
                file = relative(worker.file, project.root)
                yield Finding(file, line, "error", "role", problem, cure)


def check_roles(project: Project, handlers: dict[str, set[str]]) -> Iterator[Finding]:
    """Yield a finding for a configured event without a handler, and for the reverse.

    ``handlers``: names of the methods of ``Default``, by Worker; those in JavaScript are not there.
    """
    tailed: set[str] = set()
    for worker in project.workers.values():
        file = relative(worker.file, project.root)
        settings = worker.settings
        wanted = {
            "queue": ("consumers", bool(settings.queues.consumers), "consumes a queue"),
            "scheduled": ("crons", bool(settings.triggers.crons), "has cron triggers"),
        }
        has = handlers.get(
            worker.name, {name for name, (_, is_wanted, _) in wanted.items() if is_wanted}
        )
        for name, (key, is_wanted, what) in wanted.items():
            if is_wanted and name not in has:
                problem = f"Worker {worker.name} {what} and has no `{name}` handler"
                cure = f"Add the handler, or take out `{key}`"
                line = line_of(worker.file, key)
                yield Finding(file, line, "error", "role", problem, cure)
            elif name in has and not is_wanted:
                problem = f"Worker {worker.name} has a `{name}` handler that nothing calls"
                yield Finding(file, 1, "warning", "role", problem, f"Add `{key}`")
        for tail in settings.tail_consumers:
            tailed.add(tail.target)
            if "tail" not in handlers.get(tail.target, {"tail"}):
                problem = f"tail consumer {tail.target} has no `tail` handler"
                line = line_of(worker.file, "tail_consumers")
                yield Finding(file, line, "error", "role", problem, "Add the handler to it")
    for worker in project.workers.values():
        if "tail" in handlers.get(worker.name, ()) and worker.name not in tailed:
            problem = f"Worker {worker.name} has a `tail` handler and no Worker names it"
            cure = "Add it to `tail_consumers` of the Worker it is to watch"
            file = relative(worker.file, project.root)
            yield Finding(file, 1, "warning", "role", problem, cure)
