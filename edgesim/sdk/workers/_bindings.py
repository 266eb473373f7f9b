"""What stands on ``env``: one small class for each kind of binding.

Every call is one Call frame; the platform's side of it is edgesim/runtime/bindings.py.  Names are
JavaScript's, options are keywords or one trailing dict, unknown options are ignored, all as there.
"""

from __future__ import annotations

import json
from typing import Any

from workers._convert import from_ms, from_wire, to_wire
from workers._http import BodyReader, FetchResponse, Request, fetch_through
from workers._runtime import current_env, invocation


class Binding:
    """Anything on env that is asked over the wire."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def _ask(self, method: str, *args: Any, **options: Any) -> Any:
        return await invocation().call(
            self._name, method, [to_wire(arg) for arg in args], to_wire(options)
        )


def _options(positional: tuple[Any, ...], keywords: dict[str, Any]) -> dict[str, Any]:
    """Options given as one trailing dict, as keywords, or both."""
    merged: dict[str, Any] = {}
    for value in positional:
        if value is not None:
            merged.update(value)
    return merged | keywords


class WorkerQueue(Binding):
    """A queue that this Worker produces to."""

    async def send(self, *arguments: Any, **keywords: Any) -> Any:
        """Queue one message, ``send(body)``; options contentType and delaySeconds."""
        options = _options(arguments[1:], keywords)
        body = [_sendable(each, options.get("contentType")) for each in arguments[:1]]
        return from_wire(await self._ask("send", *body, **options))

    async def sendBatch(self, messages: Any, *options: Any, **keywords: Any) -> Any:
        """Queue up to 100 messages, each {"body", "contentType"?, "delaySeconds"?}."""
        sent = [
            each | {"body": _sendable(each["body"], each.get("contentType"))}
            if isinstance(each, dict) and "body" in each
            else each
            for each in messages
        ]
        return from_wire(await self._ask("sendBatch", sent, **_options(options, keywords)))

    async def metrics(self) -> Any:
        """Backlog count and bytes."""
        return from_wire(await self._ask("metrics"))


def _sendable(body: Any, content_type: Any) -> Any:
    """A message body without sets, which the wire would turn into lists.

    JSON.stringify makes ``{}`` of a Set; V8 would clone it, which is refused here: no other form
    could carry it to the consumer as a set.
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
    """A pipeline; the bare call works here, on the platform it needs a helper (see the docs)."""

    async def send(self, records: Any) -> None:
        """Hand over a list of JSON objects; returns when they are durable."""
        await self._ask("send", records)


class Fetcher(Binding):
    """Another Worker, or a service that speaks HTTP: ``fetch`` or any RPC method by its name."""

    async def fetch(self, resource: str | Request, **options: Any) -> FetchResponse:
        """A request to that service; the host part of the URL is arbitrary."""
        return await fetch_through(self._name, resource, options)

    def __getattr__(self, method: str) -> Any:
        if method.startswith("_"):
            raise AttributeError(method)

        async def remote(*args: Any, **keywords: Any) -> Any:
            arguments = [*args, keywords] if keywords else list(args)
            return from_wire(await self._ask(method, *arguments))

        return remote


class R2Object:
    """What R2 knows of an object."""

    def __init__(self, wire: dict[str, Any]) -> None:
        self._wire = wire

    def __getattr__(self, name: str) -> Any:
        try:
            value = self._wire[name]
        except KeyError:
            raise AttributeError(name) from None
        return from_ms(value) if name == "uploaded" else from_wire(value)

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


class R2ObjectBody(R2Object, BodyReader):
    """An object with its bytes, which are read once."""

    def __init__(self, wire: dict[str, Any], body: Any) -> None:
        R2Object.__init__(self, wire)
        BodyReader.__init__(self, body)

    @property
    def bodyUsed(self) -> bool:
        """Whether the bytes have been read."""
        return self.body_used

    async def arrayBuffer(self) -> memoryview:
        """All bytes, as a buffer."""
        return memoryview(await self.bytes())


class R2Bucket(Binding):
    """A bucket."""

    async def head(self, key: str) -> R2Object | None:
        """The object's metadata, or None."""
        found = await self._ask("head", key)
        return None if found is None else R2Object(found)

    async def get(self, key: str, *options: Any, **keywords: Any) -> R2Object | None:
        """The object, None if missing, without a body if onlyIf is not met."""
        found = await self._ask("get", key, **_options(options, keywords))
        if found is None:
            return None
        body = found.pop("body", None)
        return R2Object(found) if body is None else R2ObjectBody(found, body)

    async def put(self, key: str, value: Any, *options: Any, **keywords: Any) -> R2Object | None:
        """Store str, bytes, a stream or None; None comes back if onlyIf is not met."""
        content = value.encode() if isinstance(value, str) else value
        stored = await self._ask("put", key, content, **_options(options, keywords))
        return None if stored is None else R2Object(stored)

    async def delete(self, keys: Any) -> None:
        """Remove one key or a list of up to 1,000."""
        await self._ask("delete", keys)

    async def list(self, *options: Any, **keywords: Any) -> Any:
        """Keys in order; options prefix, limit, cursor, delimiter, startAfter, include."""
        found = await self._ask("list", **_options(options, keywords))
        objects = [R2Object(each) for each in found.pop("objects")]
        listing = from_wire(found)
        listing["objects"] = objects
        return listing


class JsonVar:
    """A JSON variable, a proxy on the platform: ``.to_py()`` gives the Python value."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __getattr__(self, name: str) -> Any:
        if not isinstance(self._value, dict) or name not in self._value:
            raise AttributeError(name)
        return self._value[name]

    def to_py(self) -> Any:
        """A fresh copy of the value."""
        return json.loads(json.dumps(self._value))


KINDS: dict[str, type[Binding]] = {
    "r2": R2Bucket,
    "queue": WorkerQueue,
    "pipeline": Pipeline,
    "service": Fetcher,
}


class Env:
    """The Worker's bindings and variables, by attribute; a missing name is an AttributeError."""

    def __init__(self, specs: list[tuple[str, str, Any]]) -> None:
        for name, kind, value in specs:
            if kind == "text":
                held: Any = value
            elif kind == "json":
                held = JsonVar(value)
            else:
                held = KINDS[kind](name)
            setattr(self, name, held)


class CurrentEnv:
    """``from workers import env``: the env of whichever Worker is running."""

    def __getattr__(self, name: str) -> Any:
        return getattr(current_env.get(), name)
