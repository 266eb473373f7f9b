"""Requests of the tools to the running project, which is looked up anew for each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp
import msgspec
from yarl import URL

from edgesim.cli.running import PREFIX, serving
from edgesim.config import Environment, Project
from edgesim.dev.presence import Owner
from edgesim.errors import RunError, UsageError

REPLY_BYTES_MAX = 8 << 20
REPLY_SECONDS = 60.0


class NodeReply(msgspec.Struct):
    """An HTTP response of the project."""

    status: int
    content_type: str
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")


class _Table(msgspec.Struct):
    """Result of a statement in ClickHouse's format JSON."""

    data: list[dict[str, Any]]


class RunningNode:
    """The project that runs on a state, if one does."""

    def __init__(self, load: Callable[[], Project]) -> None:
        self._load = load

    def project(self) -> Project:
        """The project as its files are now."""
        return self._load()

    def owner(self) -> Owner:
        """The process that serves the project; UsageError if there is none."""
        project = self._load()
        owner = serving(project)
        if owner is None:
            raise UsageError(f"no project runs on {project.state}; start it with `edgesim dev`")
        return owner

    async def get(self, path: str, **query: object) -> Any:
        """The JSON of an admin endpoint."""
        return self._json(await self._admin("GET", f"{path}?{urlencode(query)}", None))

    async def operate(self, operation: str, **arguments: object) -> Any:
        """The result of an operation."""
        wanted = {"operation": operation, "arguments": arguments}
        return self._json(await self._admin("POST", "/operations", msgspec.json.encode(wanted)))

    async def send_again(self, identifier: str, message: str) -> Any:
        """The comparison of an invocation with its repetition."""
        path = f"/invocation/again?{urlencode({'id': identifier, 'message': message})}"
        return self._json(await self._admin("POST", path, b"", 2 * REPLY_SECONDS))

    async def rows(self, statement: str) -> list[dict[str, Any]]:
        """The rows of a statement; RunError if ClickHouse refuses it."""
        reply = await self._admin("POST", "/sql?format=JSON", statement.encode())
        if reply.status != 200:
            raise RunError(" ".join(reply.text.split()))
        try:
            return msgspec.json.decode(reply.body, type=_Table).data if reply.body.strip() else []
        except msgspec.MsgspecError as error:
            raise UsageError("the rows are not JSON", "leave out FORMAT") from error

    async def drain(self, seconds: float) -> None:
        """End the windows of pipelines and deliver, for some time, what can be delivered."""
        reply = await self._admin("POST", f"/drain?timeout={seconds}", b"", seconds + REPLY_SECONDS)
        if reply.status not in {200, 504}:
            raise self._failure(reply)

    async def request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> NodeReply:
        """The reply to a request as any client could send it, without edgesim's own token."""
        return await self._send(method, f"{self.owner().url}{path}", headers, body, REPLY_SECONDS)

    def host_of(self, worker: str) -> str:
        """The Host header that names a Worker."""
        return f"{worker}.localhost:{urlsplit(self.owner().url or '').port}"

    async def _admin(
        self, method: str, path: str, body: bytes | None, seconds: float = REPLY_SECONDS
    ) -> NodeReply:
        owner = self.owner()
        token = owner.token or Environment.read().admin_token
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return await self._send(method, f"{owner.url}{PREFIX}{path}", headers, body, seconds)

    async def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        seconds: float,
    ) -> NodeReply:
        timeout = aiohttp.ClientTimeout(total=seconds)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.request(
                    method, URL(url), headers=headers, data=body, allow_redirects=False
                ) as response,
            ):
                content = bytearray()
                async for piece in response.content.iter_any():
                    content += piece
                    if len(content) > REPLY_BYTES_MAX:
                        break
        except TimeoutError as error:
            raise RunError(f"no reply to {method} {url} within {seconds:g} s") from error
        except (aiohttp.ClientError, ValueError) as error:
            cause = " ".join(str(error).split()) or type(error).__name__
            raise RunError(f"{method} {url} failed: {cause}") from error
        if len(content) > REPLY_BYTES_MAX:
            raise UsageError(f"the reply is over {REPLY_BYTES_MAX >> 20} MB; ask for less of it")
        return NodeReply(response.status, response.content_type, bytes(content))

    def _json(self, reply: NodeReply) -> Any:
        if reply.status != 200:
            raise self._failure(reply)
        return msgspec.json.decode(reply.body)

    def _failure(self, reply: NodeReply) -> UsageError | RunError:
        kind = UsageError if reply.status == 400 else RunError
        return kind(" ".join(reply.text.split()) or f"status {reply.status}")
