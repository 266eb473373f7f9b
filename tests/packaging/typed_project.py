"""A Worker and a test as users write them; wrong lines name the type checker's error."""

from http import HTTPMethod
from typing import Any, assert_type

import js
from pyodide.ffi import to_js

from edgesim.replay.testing import VirtualProject, WorkerResponse
from workers import Context, Request, Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    """A Worker with two handlers."""

    async def fetch(self, request: Request) -> Response:
        assert_type(await request.text(), str)
        assert_type(request.method, HTTPMethod)
        await self.env.QUEUE.send(to_js({"a": 1}))
        js.console.log("seen")
        assert_type(Response("x").status, int)
        Response("x", status="no")  # error: arg-type
        return Response("ok", status=200)

    async def queue(self, batch: Any, env: Any = None, ctx: Context | None = None) -> None:
        batch.ackAll()


async def test_an_order_arrives(edgesim: VirtualProject) -> None:
    """The fixture's methods have types."""
    answer = await edgesim.fetch(json={"item": "lamp"})
    assert_type(answer, WorkerResponse)
    assert_type(answer.status, int)
    assert_type(await edgesim.sql("SELECT 1"), list[list[Any]])
    await edgesim.advance("91")  # error: arg-type
    edgesim.fetsch()  # error: attr-defined
