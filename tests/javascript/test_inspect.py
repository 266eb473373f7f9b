"""`edgesim dev --inspect`: a debugger speaks to workerd through edgesim's port."""

import asyncio
import json
import socket
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import anyio
import pytest

from tests.javascript_world import programs, write_javascript
from tests.processes import descendants, dev, edgesim
from tests.simulated import write_worker

pytestmark = pytest.mark.anyio

WAIT_SECONDS = 60.0
SOURCE = """\
interface Env { NAME: string }
export default {
  async fetch(request: Request, env: Env): Promise<Response> {
    const url = new URL(request.url);
    if (url.pathname === "/call") {
      return fetch(url.searchParams.get("to")!).catch((error) => new Response(error.message));
    }
    const answer = 6 * 7;
    return new Response(String(answer));
  },
};
"""


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def inspected(tmp_path, monkeypatch):
    """A running project with a Worker in TypeScript and one in Python; its debugger's URL."""
    found = programs()
    monkeypatch.setenv("EDGESIM_WORKERD", str(found.workerd))
    monkeypatch.setenv("EDGESIM_ESBUILD", str(found.esbuild))
    write_javascript(tmp_path, "main", SOURCE, main="src/index.ts")
    write_worker(tmp_path, "other", "class Default(WorkerEntrypoint):\n    pass\n")
    (tmp_path / "edgesim.toml").write_text('workers = ["main", "other"]\n')
    with dev(tmp_path, tmp_path / "state", "--no-reload", "--inspect", 0) as running:
        running.wait_log('"debugger"')
        (line,) = [each for each in running.log if '"debugger"' in each]
        yield running, json.loads(line)["url"]
        assert running.stop() == 0


class Debugger:
    """A client of Chrome's DevTools protocol."""

    def __init__(self, socket):
        self._socket = socket
        self._count = 0
        self._events = []

    async def send(self, method, **parameters):
        """Call a method and return its result; events that come first are kept."""
        self._count += 1
        await self._socket.send_json({"id": self._count, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json()
            if message.get("id") == self._count:
                assert "error" not in message, message
                return message["result"]
            self._events.append(message)

    async def event(self, method, url=""):
        """Return the parameters of the next such event, of a script with that URL."""
        while True:
            for message in self._events:
                is_it = message.get("method") == method
                if is_it and message["params"].get("url", "").endswith(url):
                    self._events.remove(message)
                    return message["params"]
            self._events.append(await self._socket.receive_json())


@asynccontextmanager
async def debugging(url):
    """Connect to the first Worker that the list names."""
    async with aiohttp.ClientSession() as session:
        targets = await (await session.get(url)).json()
        assert [each["id"] for each in targets] == ["main"]
        address = targets[0]["webSocketDebuggerUrl"]
        async with session.ws_connect(address, max_msg_size=0) as socket:
            yield Debugger(socket)


async def test_a_breakpoint_in_the_source_stops_a_request(inspected):
    """The list, a breakpoint, an expression where it stops, and the response."""
    running, url = inspected
    with anyio.fail_after(WAIT_SECONDS):
        async with debugging(url) as debugger:
            await debugger.send("Debugger.enable")
            script = await debugger.event("Debugger.scriptParsed", url="worker")
            assert script["sourceMapURL"].startswith("data:application/json")
            found = await debugger.send("Debugger.getScriptSource", scriptId=script["scriptId"])
            lines = found["scriptSource"].splitlines()
            line = next(at for at, text in enumerate(lines) if "String(answer)" in text)
            where = {"scriptId": script["scriptId"], "lineNumber": line, "columnNumber": 0}
            await debugger.send("Debugger.setBreakpoint", location=where)
            asked = asyncio.create_task(asyncio.to_thread(running.request, method="GET"))
            paused = await debugger.event("Debugger.paused")
            frame = paused["callFrames"][0]
            assert frame["location"]["lineNumber"] == line
            value = await debugger.send(
                "Debugger.evaluateOnCallFrame",
                callFrameId=frame["callFrameId"],
                expression="answer + url.pathname",
            )
            assert value["result"]["value"] == "42/"
            assert not asked.done()
            await debugger.send("Debugger.resume")
            assert await asked == (200, b"42")


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "file://"},
    ],
)
async def test_web_pages_are_refused(inspected, headers):
    """A name that resolves to this machine, and an origin of the web, reach no debugger."""
    _, url = inspected
    async with aiohttp.ClientSession(headers=headers) as session:
        for path in (url, url.replace("/json", "/main")):
            assert (await session.get(path)).status == 403


def listening(pid):
    """The TCP addresses and ports at which a process listens."""
    inodes = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            inodes.add(each.readlink().name.removeprefix("socket:[").removesuffix("]"))
    table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [
        (socket.inet_ntoa(bytes.fromhex(address)[::-1]), int(port, 16))
        for row in table
        if row[3] == "0A" and row[9] in inodes
        for address, port in [row[1].split(":")]
    ]


async def test_workerd_itself_has_no_path_to_guess(inspected):
    """A page of another origin that finds workerd's own port connects to no Worker."""
    running, url = inspected
    async with debugging(url) as debugger:
        await debugger.send("Runtime.enable")
        started = descendants(running.process.pid)
        ((address, port),) = [each for pid in started for each in listening(pid)]
        page = {"Origin": "https://evil.example"}
        async with aiohttp.ClientSession(headers=page) as session:
            for path in ("main", "", "json"):
                with pytest.raises(aiohttp.WSServerHandshakeError):
                    await session.ws_connect(f"http://{address}:{port}/{path}")
            listed = await session.get(f"http://{address}:{port}/json")
            assert "access-control-allow-origin" not in listed.headers


@pytest.mark.skipif(sys.platform != "linux", reason="loopback has one address here")
async def test_dns_rebinding_finds_no_port_of_workerd(inspected):
    """workerd lists its path to every host name, so none of its ports is at a known address."""
    running, url = inspected
    async with debugging(url) as debugger:
        await debugger.send("Runtime.enable")
        started = descendants(running.process.pid)
        ((address, port),) = [each for pid in started for each in listening(pid)]
        assert address.startswith("127.")
        for known in ("127.0.0.1", "127.0.0.2", "127.0.1.1", "127.127.127.127"):
            with pytest.raises(OSError):
                await anyio.connect_tcp(known, port)


async def test_a_worker_reaches_no_debugger(inspected):
    """Neither edgesim's port nor workerd's own."""
    running, url = inspected
    async with debugging(url) as debugger:
        await debugger.send("Runtime.enable")
        started = descendants(running.process.pid)
        own = [f"http://{address}:{port}" for pid in started for address, port in listening(pid)]
    assert own
    for each in (url, *own):
        status, body = await asyncio.to_thread(running.request, f"/call?to={each}", method="GET")
        assert status == 200
        assert b"port of edgesim itself" in body


async def test_an_unknown_path_names_the_workers(inspected):
    """404 with the paths that there are."""
    _, url = inspected
    async with aiohttp.ClientSession() as session:
        answer = await session.get(url.replace("/json", "/other"))
        assert answer.status == 404
        assert "/main" in (await answer.json())["error"]


async def test_a_project_without_javascript_is_refused(tmp_path):
    """One line with the way for Python."""
    write_worker(tmp_path, "main", "class Default(WorkerEntrypoint):\n    pass\n")
    (tmp_path / "edgesim.toml").write_text('workers = ["main"]\n')
    done = await asyncio.to_thread(edgesim, "dev", tmp_path, "--inspect", "--port", 0)
    assert done.returncode == 2
    assert "--inspect is for Workers in JavaScript" in done.stderr
    assert "breakpoint()" in done.stderr
