"""The Workers of this repository over memory backends, with a real or a scripted ClickHouse.

Handlers run as on the platform; a test checks their responses, the content of buckets and queues,
and the requests to ClickHouse or its rows.
"""

import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from edgesim.backends import Backends, open_backends
from edgesim.clock import Clock
from edgesim.config import Environment, load_project
from edgesim.config.project import DEFAULT, Overrides
from edgesim.model import HttpRequest, HttpResponse, Message, read_all
from edgesim.queues.producer import Metrics
from edgesim.r2.bucket import R2ObjectBody
from edgesim.runtime.delivery import deliver
from edgesim.simulator import Simulator, open_simulator
from tests.processes import WORKERS


class Scripted:
    """A ClickHouse that always sends the same reply; ``asked`` is (query, settings, data)."""

    def __init__(self, answer: HttpResponse | None = None) -> None:
        self.answer = answer or HttpResponse(200)
        self.asked: list[tuple[str, dict[str, str], bytes]] = []

    async def fetch(self, request: HttpRequest, caller: str = "") -> HttpResponse:
        settings = {name: found[0] for name, found in parse_qs(urlsplit(request.url).query).items()}
        data = await read_all(request.body)
        self.asked.append((settings.pop("query", ""), settings, data))
        return self.answer


def refusal(code: int, text: str = "no") -> HttpResponse:
    """Build ClickHouse's reply to a rejected statement."""
    headers = [("x-clickhouse-exception-code", str(code))]
    return HttpResponse(500, headers, f"Code: {code}. DB::Exception: {text}\n".encode())


class World:
    """A running project and methods to inspect it."""

    def __init__(self, simulator: Simulator, backends: Backends) -> None:
        self.simulator = simulator
        self.backends = backends

    async def post(
        self,
        body: Any,
        headers: dict[str, str] | None = None,
        method: str = "POST",
        path: str = "/",
    ) -> tuple[int, dict[str, str], bytes]:
        """Send a request to the receiver; return the status, headers and body of its response."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = [*{"content-length": str(len(content)), **(headers or {})}.items()]
        request = HttpRequest(method, f"http://receiver.localhost{path}", given, content)
        answer = await self.simulator.fetch(request)
        shown = {name.lower(): value for name, value in answer.headers}
        return answer.status, shown, await read_all(answer.body)

    async def records(self, bucket: str) -> list[Any]:
        """Drain, then return the records that pipelines have written to a bucket, oldest first."""
        assert not (await self.simulator.draining.drain(60)).left
        rows = []
        async for found in self.simulator.primitives.objects(bucket, ""):
            text = gzip.decompress(await self.content(bucket, found.key))
            rows += [json.loads(line) for line in text.splitlines()]
        return rows

    async def content(self, bucket: str, key: str) -> bytes:
        found = await self.simulator.primitives.bucket(bucket).get(key)
        assert isinstance(found, R2ObjectBody)
        return await read_all(found.body)

    async def put(self, bucket: str, key: str, lines: bytes) -> None:
        """Store an object as a Pipeline writes it (``.gz``) or as a user uploads it (plain)."""
        await self.put_raw(
            bucket, key, gzip.compress(lines) if key.endswith(".gz") and lines else lines
        )

    async def put_raw(self, bucket: str, key: str, content: bytes) -> None:
        """Store an object with these bytes."""
        await self.simulator.primitives.bucket(bucket).put(key, content)

    async def deliver(self, worker: str, queue: str, *bodies: Any, attempts: int = 1) -> Any:
        """Deliver one batch to a queue handler and return the result of each message."""
        messages = [
            Message(f"m{number}", json.dumps(body).encode(), "json", 0, attempts)
            for number, body in enumerate(bodies)
        ]
        running = self.simulator.workers[worker]
        result = await deliver(running, queue, messages, Metrics(len(messages), 0))
        assert not result.failed
        return result

    async def sql(self, query: str) -> Any:
        """Run a query and return its rows."""
        plain = "output_format_json_quote_64bit_integers=0"
        url = f"http://clickhouse/?default_format=JSONCompact&{plain}"
        answer = await self.backends.gateway.fetch(HttpRequest("POST", url, [], query.encode()))
        text = (await read_all(answer.body)).decode()
        assert answer.status == 200, text
        return json.loads(text)["data"] if text else []

    async def dead_letters(self) -> list[Any]:
        queue = self.simulator.primitives.queue("ingest-dlq")
        return [json.loads(message.body) for message in await queue.peek(100)]


def notification(key: str, bucket: str = "events") -> dict[str, Any]:
    """Build the notification that R2 sends for a new object."""
    return {
        "account": "edgesim",
        "action": "PutObject",
        "bucket": bucket,
        "object": {"key": key, "size": 1, "eTag": "e"},
        "eventTime": "2026-01-01T00:00:00.000Z",
    }


@asynccontextmanager
async def world(
    state: Path,
    *,
    scripted: Scripted | None = None,
    clickhouse: str | None = None,
    schema: str = "schema.sql",
    **variables: dict[str, str],
) -> AsyncIterator[World]:
    """Run the project; ``variables`` changes vars of Workers, whose names have _ for -.

    R2 sends no notifications here: a test delivers messages to the consumers itself.
    """
    overrides = Overrides(
        state=state,
        isolation={DEFAULT: "inline"},
        r2="memory:",
        queues="memory:",
        clickhouse=clickhouse,
    )
    project = load_project(WORKERS, overrides)
    project.schema = (WORKERS / "insert" / schema).read_text()
    for name, values in variables.items():
        project.workers[name.replace("_", "-")].settings.vars.update(values)
    project.account.r2.clear()
    clock = Clock()
    async with open_backends(project, Environment(), clock) as backends:
        if scripted is not None:
            backends.gateway = scripted  # type: ignore[assignment]
        async with open_simulator(project, backends, clock) as simulator:
            yield World(simulator, backends)
