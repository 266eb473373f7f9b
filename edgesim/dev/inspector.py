"""The debugger of JavaScript Workers: one port with all of them, as Node's and workerd's own.

``/json`` lists the Workers; the WebSocket of each goes to workerd's inspector as it is, for the
version of the Worker that runs then.  Only clients of this machine that are no web pages are served
here, since clients of this protocol run code in the Worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from urllib.parse import quote, unquote, urlsplit

import anyio
import msgspec
import structlog

from edgesim.dev.edge import LOOPBACK_HOSTS
from edgesim.isolates.javascript.inspector import ADDRESS, SERVICE

HEAD_BYTES_MAX = 16_384
HEAD_SECONDS = 10.0
_CHUNK = 1 << 16
_DEBUGGERS = {"", "chrome-devtools", "devtools", "vscode-file", "vscode-webview"}
"""Schemes of origins that may connect: debuggers send one of these, or no origin."""
_FRONTEND = "devtools://devtools/bundled/js_app.html?experiments=true&v8only=true&ws="

log = structlog.get_logger()


class InspectorServer:
    """Serves debuggers; ``ports`` returns the ports of the running Workers' own inspectors."""

    def __init__(self, ports: Callable[[], Mapping[str, int]]) -> None:
        self._ports = ports

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            with anyio.fail_after(HEAD_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            await self._answer(head, reader, writer)
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
            log.debug("debugger disconnected", error=str(error))
        except asyncio.LimitOverrunError:
            _reply(writer, 431, {"error": "the head of the request is too large"})
        finally:
            with suppress(OSError):
                writer.close()
                await writer.wait_closed()

    async def _answer(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        _, path, _ = first.split(" ", 2)
        path = path.partition("?")[0].rstrip("/")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines if line)
        }
        host = headers.get("host", "")
        if not _is_local(host, headers.get("origin", "")):
            _reply(writer, 403, {"error": "debuggers of this machine only"})
        elif path in {"/json", "/json/list"}:
            _reply(writer, 200, [_target(name, host) for name in self._ports()])
        elif path == "/json/version":
            _reply(writer, 200, {"Browser": "workerd", "Protocol-Version": "1.3"})
        else:
            port = self._ports().get(unquote(path[1:]))
            if port is None:
                known = ", ".join(f"/{name}" for name in self._ports())
                _reply(writer, 404, {"error": f"no Worker has this path; there are {known}"})
            else:
                await _pass_on(f"{ADDRESS}:{port}", port, lines, reader, writer)


async def _pass_on(
    host: str,
    port: int,
    lines: list[str],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Send the request to a Worker's inspector, and every byte after it both ways."""
    theirs, ours = await asyncio.open_connection(ADDRESS, port)
    try:
        kept = [line for line in lines if line and not line.lower().startswith("host:")]
        head = [f"GET /{SERVICE} HTTP/1.1", f"Host: {host}", *kept]
        ours.write("\r\n".join([*head, "", ""]).encode("latin-1"))
        async with anyio.create_task_group() as tasks:
            for source, target in ((reader, ours), (theirs, writer)):
                tasks.start_soon(_copy, source, target, tasks.cancel_scope)
    finally:
        ours.close()


async def _copy(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, scope: anyio.CancelScope
) -> None:
    """Copy until one of both ends, then end the other direction too."""
    with suppress(OSError):
        while chunk := await source.read(_CHUNK):
            target.write(chunk)
            await target.drain()
    scope.cancel()


def _is_local(host: str, origin: str) -> bool:
    """False for another host's name, which resolves to this one, and for web pages."""
    name = urlsplit(f"//{host}").hostname
    return name in LOOPBACK_HOSTS and origin.partition(":")[0].lower() in _DEBUGGERS


def _target(name: str, host: str) -> dict[str, str]:
    path = f"{host}/{quote(name)}"
    return {
        "id": name,
        "title": f"edgesim: Worker {name}",
        "type": "node",
        "description": "workerd",
        "webSocketDebuggerUrl": f"ws://{path}",
        "devtoolsFrontendUrl": f"{_FRONTEND}{path}",
    }


def _reply(writer: asyncio.StreamWriter, status: int, value: object) -> None:
    body = msgspec.json.encode(value)
    writer.write(
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        "Content-Type: application/json; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
        + body
    )
