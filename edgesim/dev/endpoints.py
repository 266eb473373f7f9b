"""Admin endpoints as data: path, method, and the types by which they are served and described.

An endpoint is a function of the Simulator, the request and, if it has a third parameter, the
query: a struct with a field for each parameter. It returns the reply: values that msgspec encodes
as JSON, or a Response of its own. ``openapi.py`` describes the endpoints by the same types.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from edgesim.errors import PlatformError, UsageError
from edgesim.simulator import Simulator

JSON = "application/json"
TEXT = "text/plain"
EVENT_STREAM = "text/event-stream"
ANY_MEDIA = "application/octet-stream"


class Endpoint:
    """One endpoint.

    ``reply`` is the type of a JSON reply, or a media type; without it the function's own return
    type. ``body`` is the same for the request. ``statuses`` are those beside 200 and those that
    every endpoint may reply with, such as "404" or "5XX". ``worker_hosts``: see ``Access.refusal``.
    """

    def __init__(
        self,
        methods: str,
        path: str,
        function: Callable[..., Awaitable[Any]],
        *,
        reply: Any = None,
        body: Any = None,
        statuses: Mapping[str, str] | None = None,
        worker_hosts: bool = False,
    ) -> None:
        self.methods = methods.split()
        self.path = path
        self.function = function
        self.body = body
        self.statuses = dict(statuses or {})
        self.worker_hosts = worker_hosts
        self._reply = reply

    @cached_property
    def _types(self) -> dict[str, Any]:
        return get_type_hints(self.function, include_extras=True)

    @cached_property
    def query(self) -> type[msgspec.Struct] | None:
        """The struct of the query's parameters; None if the endpoint has none."""
        return self._types.get("query")

    @property
    def reply(self) -> Any:
        """The type or the media type of the reply."""
        return self._types["return"] if self._reply is None else self._reply

    @property
    def summary(self) -> str:
        """The first paragraph of the function's docstring, in one line."""
        text = inspect.getdoc(self.function) or ""
        return " ".join(text.partition("\n\n")[0].split())

    async def serve(self, simulator: Simulator, request: Request) -> Response:
        """Reply to a request; UsageError for a wrong query."""
        if self.query is None:
            result = await self.function(simulator, request)
        else:
            query = read_query(self.query, request.query_params)
            result = await self.function(simulator, request, query)
        return result if isinstance(result, Response) else json_reply(result)


def json_reply(value: Any, status: int = 200) -> Response:
    """A reply with a value as JSON."""
    return Response(msgspec.json.encode(value), status, media_type=JSON)


def refused(error: UsageError | PlatformError | msgspec.MsgspecError) -> Response:
    """The reply to a wrong request."""
    return PlainTextResponse(f"{error}\n", 400)


def read_query(kind: type[msgspec.Struct], given: Mapping[str, str]) -> Any:
    """The struct of a query; UsageError names the parameter that is missing or wrong."""
    values = {}
    for field in msgspec.structs.fields(kind):
        name = field.encode_name
        if name not in given:
            if field.required:
                raise UsageError(f"the query parameter {name!r} is missing")
            continue
        try:
            values[name] = msgspec.convert(given[name], field.type, strict=False)
        except msgspec.ValidationError as error:
            wanted = _wanted(field.type)
            problem = f" must be {wanted}, not {given[name]!r}" if wanted else f": {error}"
            raise UsageError(f"{name}{problem}") from error
    return kind(**values)


def _wanted(kind: Any) -> str:
    """The numbers of a type, in words; empty for another type."""
    if get_origin(kind) is not Annotated:
        return next(filter(None, map(_wanted, get_args(kind))), "")  # an optional number
    meta = get_args(kind)[1]
    if meta.ge is None or meta.le is None:
        return ""
    unit = f" of {meta.description}" if meta.description else ""
    return f"a number{unit} from {meta.ge} to {meta.le}"
