"""``env`` and its bindings: one small class for each kind of binding.

Every call is one Call frame; edgesim/runtime/bindings.py implements the platform's side.  As on the
platform, names are JavaScript's, options are keywords or one trailing dict, and unknown options are
ignored.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from keyword import iskeyword
from typing import Any

from pyodide.ffi import to_proxy

from workers._analytics import AnalyticsEngine
from workers._binding import Binding, merged_options
from workers._convert import from_wire, to_wire
from workers._http import Request, Response, fetch_through
from workers._kv import KvNamespace
from workers._r2 import R2Bucket
from workers._runtime import current_env, invocation


class WorkerQueue(Binding):
    """Producer binding of a queue."""

    async def send(self, *arguments: Any, **keywords: Any) -> Any:
        """Send one message, ``send(body)``; options contentType and delaySeconds."""
        options = merged_options(arguments[1:], keywords)
        body = [_sendable(each, options.get("contentType")) for each in arguments[:1]]
        return from_wire(await self._ask("send", *body, **options))

    async def sendBatch(self, messages: Any, *options: Any, **keywords: Any) -> Any:
        """Send up to 100 messages, each {"body", "contentType"?, "delaySeconds"?}."""
        if not isinstance(messages, list):
            raise TypeError("sendBatch requires a list: a generator arrives empty on the platform")
        sent = [
            each | {"body": _sendable(each["body"], each.get("contentType"))}
            if isinstance(each, dict) and "body" in each
            else each
            for each in messages
        ]
        return from_wire(await self._ask("sendBatch", sent, **merged_options(options, keywords)))

    async def metrics(self) -> Any:
        """Return the backlog's message count and bytes."""
        return from_wire(await self._ask("metrics"))


def _sendable(body: Any, content_type: Any) -> Any:
    """Replace sets in a message body, which the wire format would turn into lists.

    JSON.stringify turns a Set into ``{}``.  V8 would clone it; a TypeError here, because the wire
    format has no set.
    """
    if isinstance(body, dict):
        return {key: _sendable(value, content_type) for key, value in body.items()}
    if isinstance(body, list):
        return [_sendable(value, content_type) for value in body]
    if not isinstance(body, set | frozenset):
        return body
    if str(content_type).lower() == "v8":
        raise TypeError("a set cannot be sent in a v8 message here; send a list")
    return {}


class Pipeline(Binding):
    """Binding to a pipeline; a direct call works here, the platform needs a helper (see docs)."""

    async def send(self, records: Any) -> None:
        """Send a list of JSON objects; returns when they are durable."""
        await self._ask("send", records)


class Fetcher:
    """Binding to another Worker or an HTTP service: ``fetch``, or any RPC method by its name.

    Its own attributes begin with two underscores: every other name is a method of the target.  With
    the caller's compatibility flag ``service_binding_extra_handlers``, ``scheduled`` runs the
    target's handler; the result has ``outcome`` and ``noRetry``.
    """

    def __init__(self, name: str) -> None:
        self.__name = name

    async def fetch(self, resource: str | Request, **options: Any) -> Response:
        """Send a request to that service; the host part of the URL is arbitrary."""
        return await fetch_through(self.__name, resource, options)

    def __getattr__(self, method: str) -> Any:
        if method.startswith("__") or method in _NO_METHODS:
            raise AttributeError(method)
        # As in Pyodide: ``env.S.import_()`` calls the method ``import``.
        if method.endswith("_") and iskeyword(method.rstrip("_")):
            method = method[:-1]

        async def remote(*args: Any, **keywords: Any) -> Any:
            sent = [to_wire(each) for each in ([*args, keywords] if keywords else args)]
            return from_wire(await invocation().call(self.__name, method, sent))

        return remote


_NO_METHODS = {"then", "to_py"}
"""Names that JavaScript and Pyodide look for on every object."""

KINDS: dict[str, Callable[[str], Any]] = {
    "r2": R2Bucket,
    "kv": KvNamespace,
    "queue": WorkerQueue,
    "analytics": AnalyticsEngine,
    "pipeline": Pipeline,
    "service": Fetcher,
}


class Env:
    """The Worker's bindings and variables as attributes; a missing name is an AttributeError."""

    def __init__(self, specs: list[tuple[str, str, Any]]) -> None:
        self._json: dict[str, str] = {}
        for name, kind, value in specs:
            if kind == "json":
                self._json[name] = json.dumps(value)
            else:
                setattr(self, name, value if kind == "text" else KINDS[kind](name))

    def __getattr__(self, name: str) -> Any:
        """Return a new copy of a JSON variable, raw as on the platform."""
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._json:
            raise AttributeError(
                f"env.{name}: the wrangler file declares no such binding or variable"
            )
        return to_proxy(json.loads(self._json[name]))


class PatchedEnv:
    """An env with some names replaced, for ``patch_env``."""

    def __init__(self, env: Any, changes: dict[str, Any]) -> None:
        self._env = env
        self._changes = changes

    def __getattr__(self, name: str) -> Any:
        return self._changes[name] if name in self._changes else getattr(self._env, name)


class CurrentEnv:
    """``from workers import env``: forwards to the env of the running Worker."""

    def __getattr__(self, name: str) -> Any:
        return getattr(current_env.get(), name)
