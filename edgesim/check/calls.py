"""Rules about SDK calls that the platform silently ignores or refuses at run time."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from edgesim.check.findings import Finding, relative
from edgesim.check.sources import Source, dotted
from edgesim.config import WorkerConfig

_HIDDEN = frozenset({"send", "asend"})
_IGNORED_BY_FETCH = frozenset({"json", "params", "data", "timeout", "cookies", "auth", "verify"})
_SNAKE = {"delay_seconds": "delaySeconds", "content_type": "contentType"}
_WRITERS = frozenset({"send", "sendBatch", "put", "delete"})


def check_calls(worker: WorkerConfig, source: Source, root: Path) -> Iterator[Finding]:
    """Yield the findings for calls, ``workers`` imports and ``env[...]`` in the module."""
    file = relative(source.file, root)
    stubs = {each.binding for each in worker.settings.pipelines}
    services = {each.binding for each in worker.settings.services}
    bindings = {each.name for each in worker.bindings() if each.kind not in {"text", "json"}}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call):
            yield from _call(file, node, stubs, services, bindings)
        elif isinstance(node, ast.ImportFrom) and node.module == "workers":
            yield from _import(file, node)
        elif isinstance(node, ast.Subscript) and dotted(node.value) in {"self.env", "env"}:
            cure = "Write it as an attribute: `self.env.NAME`"
            problem = "env has no [] on the platform"
            yield Finding(file, node.lineno, "error", "sdk", problem, cure)


def _call(
    file: str, node: ast.Call, stubs: set[str], services: set[str], bindings: set[str]
) -> Iterator[Finding]:
    owner, _, method = (dotted(node.func) or "").rpartition(".")
    binding = owner.rpartition(".")[2]
    keywords = {each.arg for each in node.keywords if each.arg}
    if binding in stubs | services and method in _HIDDEN:
        problem = (
            f"`{binding}.{method}(...)` is a TypeError on the platform, where Pyodide takes the "
            "binding for an iterator"
        )
        cure = (
            f'Write `await call(self.env.{binding}, "{method}", rows)` '
            "(docs/explanation/differences-from-cloudflare.md)"
        )
        yield Finding(file, node.lineno, "warning", "pipeline-send", problem, cure)
    if method == "fetch" or node_name(node) == "fetch":
        for name in sorted(keywords & _IGNORED_BY_FETCH):
            problem = f"fetch ignores `{name}=` without a word on the platform"
            cure = "Use body=json.dumps(...), the URL's query, or asyncio.timeout"
            yield Finding(file, node.lineno, "error", "sdk", problem, cure)
        for each in node.keywords:
            if each.arg == "body" and isinstance(each.value, ast.Dict | ast.List):
                problem = "a dict or a list as a body is sent as '[object Object]'"
                yield Finding(file, node.lineno, "error", "sdk", problem, "Use json.dumps(...)")
    if method in {"retry", "retryAll", "send", "sendBatch"}:
        for name in sorted(keywords & set(_SNAKE)):
            problem = f"`{name}=` is ignored without a word: the platform's names are JavaScript's"
            yield Finding(file, node.lineno, "error", "sdk", problem, f"Write `{_SNAKE[name]}=`")
    if method in {"retry", "retryAll"} and node.args and isinstance(node.args[0], ast.Constant):
        problem = f"{method}({node.args[0].value!r}) is a TypeError"
        yield Finding(file, node.lineno, "error", "sdk", problem, "Write delaySeconds=...")
    if binding in bindings and method in _WRITERS and _has_tuple(node.args):
        problem = "a tuple cannot be sent to a binding"
        yield Finding(file, node.lineno, "error", "sdk", problem, "Send a list")
    if node_name(node) == "Response" and node.args and isinstance(node.args[0], ast.Dict):
        problem = "Response takes no dict"
        yield Finding(file, node.lineno, "error", "sdk", problem, "Use Response.json(...)")
    if method == "wait_until":
        problem = "there is no wait_until on ctx"
        yield Finding(file, node.lineno, "error", "sdk", problem, "Write self.ctx.waitUntil(...)")


def node_name(node: ast.Call) -> str | None:
    """The called name; None if the call is of an attribute or expression."""
    return node.func.id if isinstance(node.func, ast.Name) else None


def _has_tuple(arguments: list[ast.expr]) -> bool:
    """True if an argument is a tuple, or a list or dict literal that contains one."""
    waiting: list[ast.AST] = list(arguments)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Tuple):
            return True
        if isinstance(node, ast.List | ast.Dict):
            waiting += ast.iter_child_nodes(node)
    return False


def _import(file: str, node: ast.ImportFrom) -> Iterator[Finding]:
    for each in node.names:
        if each.name in {"wait_until", "waitUntil"}:
            problem = f"{each.name} of the module fails with a coroutine on the platform"
            cure = "Use self.ctx.waitUntil(...)"
            yield Finding(file, node.lineno, "warning", "sdk", problem, cure)
