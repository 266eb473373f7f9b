"""`edgesim mcp`, asked by the SDK's own client about a real running project."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mcp_types
import pytest
from anyio.from_thread import start_blocking_portal
from mcp import Client, StdioServerParameters, stdio_client

from edgesim.cli.mcp.tools import TOOLS
from tests.processes import ROOT, dev
from tests.simulated import write_worker

MAIN = """
import gzip


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        if "/fail" in request.url:
            print("about to fail")
            raise ValueError("on purpose")
        if "/later" in request.url:
            await self.env.LATER.send([{"name": await request.text()}])
            return Response("accepted")
        await self._insert(await request.text())
        return Response("stored")

    async def queue(self, batch, env, ctx):
        for message in batch.messages:
            if message.body == "bad":
                raise LookupError("bad message")
            found = await self.env.RECORDS.get(message.body["object"]["key"])
            for line in gzip.decompress(await found.bytes()).splitlines():
                await self._insert(json.loads(line)["name"])

    async def _insert(self, name):
        answer = await self.env.CLICKHOUSE.fetch(
            "http://clickhouse/", method="POST", body=f"INSERT INTO names VALUES ('{name}')"
        )
        assert answer.status == 200, await answer.text()
"""
ACCOUNT = """
workers = ["main", "other"]
[clickhouse]
schema = "schema.sql"
[pipelines.later]
bucket = "records"
[[r2.records.notifications]]
queue = "jobs"
[streams.clicks.http]
enabled = true
"""
SCHEMA = "CREATE TABLE IF NOT EXISTS names (name String) ENGINE = MergeTree ORDER BY name;"
OTHER = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response(f"{request.method} {request.headers['x-mark']}")
"""
INLINE = ("--isolation", "inline")


class McpClient:
    """A client of one server process; ``before``: a reply from before the project ran."""

    def __init__(self, ask: Callable[[str, dict[str, Any]], mcp_types.CallToolResult]) -> None:
        self._ask = ask
        self.before = ""
        self.tools: list[mcp_types.Tool] = []

    def reply(self, name: str, **arguments: Any) -> tuple[bool, str]:
        """Call a tool; return whether it failed, and the text."""
        result = self._ask(name, arguments)
        [content] = result.content
        assert isinstance(content, mcp_types.TextContent)
        return result.is_error, content.text

    def call(self, name: str, **arguments: Any) -> Any:
        """Call a tool that must succeed, and return its JSON."""
        failed, text = self.reply(name, **arguments)
        assert not failed, text
        return json.loads(text)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[McpClient]:
    """A client whose server is started before the project, as by an editor."""
    folder = tmp_path_factory.mktemp("mcp")
    project, state = folder / "project", folder / "state"
    clickhouse = [{"binding": "CLICKHOUSE", "service": "clickhouse"}]
    consumer = {"queue": "jobs", "max_batch_timeout": 0, "max_retries": 0}
    write_worker(
        project,
        "main",
        MAIN,
        services=clickhouse,
        pipelines=[{"binding": "LATER", "stream": "later"}],
        r2_buckets=[{"binding": "RECORDS", "bucket_name": "records"}],
        queues={"consumers": [consumer | {"dead_letter_queue": "jobs-dead"}]},
    )
    write_worker(project, "other", OTHER)
    (project / "edgesim.toml").write_text(ACCOUNT)
    (project / "schema.sql").write_text(SCHEMA)
    words = ["-m", "edgesim.cli", "mcp", "--project", str(project), "--state", str(state)]
    server = StdioServerParameters(command=sys.executable, args=words, cwd=str(ROOT))
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(Client(stdio_client(server))) as connection,
    ):
        client = McpClient(
            lambda name, arguments: portal.call(connection.call_tool, name, arguments)
        )
        client.tools = portal.call(connection.list_tools).tools
        client.before = client.reply("list_flows")[1]
        with dev(project, state, "--no-reload", *INLINE):
            yield client


def test_a_project_that_starts_later_is_found(client):
    """A call without a running project is one clear line; the tools work once it runs."""
    assert client.before.startswith("no project runs on ")
    assert client.before.endswith("start it with `edgesim dev`")
    flows = client.call("list_flows")
    assert flows["entry"] == "main"
    edge = {"source": "queue jobs", "target": "worker main", "what": "batches", "main": True}
    assert edge in flows["edges"]
    assert flows["counters"]["queues"]["jobs"]["backlog"] == 0


def test_tools_are_described(client):
    """Each tool has a title, a description, and an object as schema with described arguments."""
    assert [each.name for each in client.tools] == list(TOOLS)
    for tool in client.tools:
        assert tool.title
        assert tool.description
        assert tool.input_schema["type"] == "object"
        assert tool.input_schema["additionalProperties"] is False


def test_an_event_becomes_a_row(client):
    """An event that is sent to the entry Worker is waited for as a row, and traced to it."""
    sent = client.call("send_event", event="name-7731")
    assert (sent["status"], sent["body"]) == (200, "stored")
    rows = client.call("wait_for_row", statement="SELECT name FROM names WHERE name LIKE '%7731'")
    assert rows == {"rows": [{"name": "name-7731"}]}
    stages = {each["stage"] for each in client.call("trace_event", text="name-7731")["places"]}
    assert "table" in stages


def test_a_window_is_ended_for_a_row(client):
    """While a window is open the reply names it; the row is there once everything is delivered."""
    assert client.call("send_event", event="by-window", path="/later")["body"] == "accepted"
    statement = "SELECT name FROM names WHERE name = 'by-window'"
    waiting = client.call("wait_for_row", statement=statement, timeout_seconds=0)
    [pipeline] = waiting["waiting_in_pipelines"]
    assert (waiting["rows"], pipeline["pipeline"], pipeline["records"]) == ([], "later", 1)
    assert 0 < pipeline["window_ends_in_seconds"] <= 90
    found = client.call("wait_for_row", statement=statement, deliver_now=True)
    assert found["rows"] == [{"name": "by-window"}]


def test_other_targets_take_events(client):
    """A Worker is reached by its name with method and headers, a stream takes records."""
    headers = {"x-mark": "7"}
    sent = client.call("send_event", to="workers.other", method="PATCH", path="/a", headers=headers)
    assert (sent["status"], sent["body"]) == (200, "PATCH 7")
    for event in ({"n": 1}, [{"n": 2}, {"n": 3}]):
        sent = client.call("send_event", event=event, to="streams.clicks")
        assert json.loads(sent["body"])["success"]
    assert client.call("list_flows")["counters"]["streams"]["clicks"]["records"] == 3


def test_the_last_failure_is_explained(client):
    """The last failed invocation is shown with its cause, console lines and consequence."""
    for _ in range(2):
        assert client.call("send_event", method="GET", path="/fail?n=1")["status"] == 500
    client.call("send_event", event="fine")
    found = client.call("explain_last_failure", worker="main", text="/fail")
    failure = found["failure"]
    assert (failure["worker"], failure["outcome"]) == ("main", "exception")
    assert failure["event"].endswith("/fail?n=1")
    assert failure["exceptions"][0]["message"].endswith("ValueError: on purpose")
    assert "entry.py" in failure["exceptions"][0]["message"]
    assert failure["console"] == ["log: about to fail"]
    assert found["failures_of_this_kind"] == 2
    again = client.call("send_again", id=failure["id"])
    assert (again["same"], again["after"]["exceptions"]) == (True, ["ValueError: on purpose"])
    client.call("send_event", event="bad", to="queues.jobs")
    client.call("wait_for_row", statement="SELECT 1", deliver_now=True)
    found = client.call("explain_last_failure")
    assert found["failure"]["exceptions"][0]["message"].endswith("LookupError: bad message")
    assert "dead-letter queue jobs-dead" in found["failure"]["consequence"]
    assert found["also_wrong"]["dead_letters"] == {"jobs": 1}


def test_a_large_result_is_cut(client):
    """Rows that a model could not read are left out, and counted."""
    found = client.call("run_sql", statement="SELECT number FROM numbers(20000)")
    assert found["rows"][0] == {"number": 0}
    assert len(found["rows"]) + found["rows_left_out"] == 20_000
    assert len(json.dumps(found)) < 100_000


@pytest.mark.parametrize(
    ("tool", "arguments", "problem"),
    [
        ("send_events", {}, "there is no tool 'send_events'; did you mean 'send_event'?"),
        ("trace_event", {}, "trace_event: Object missing required field `text`"),
        ("trace_event", {"text": 7}, "Expected `str`, got `int` - at `$.text`"),
        ("trace_event", {"text": ""}, "must have 1 to 1000 characters"),
        ("trace_event", {"text": "x", "case": 1}, "Object contains unknown field `case`"),
        ("run_sql", {"statement": "SELECT nothing"}, "UNKNOWN_IDENTIFIER"),
        ("run_sql", {"statement": "SELECT 1 FORMAT CSV"}, "leave out FORMAT"),
        ("wait_for_row", {"statement": "INSERT INTO names VALUES ('x')"}, "begin with SELECT"),
        ("wait_for_row", {"statement": "SELECT 1", "timeout_seconds": 1e9}, "<= 600.0"),
        ("send_event", {"event": 1, "to": "jobs"}, "to: 'jobs' is none of workers.NAME"),
        ("send_event", {"event": 1, "to": "queues.job"}, "did you mean 'jobs'?"),
        ("send_event", {"to": "queues.jobs"}, "event: missing"),
        ("send_event", {"event": 1, "to": "workers.mian"}, "did you mean 'main'?"),
        ("send_event", {"path": "x"}, "path: 'x' does not begin with /"),
        ("send_event", {"headers": {"a\nb": "c"}}, "control character"),
        ("send_event", {"method": "BAD METHOD"}, "BAD METHOD"),
        ("send_again", {"id": "x y/../1"}, "no invocation 'x y/../1' is kept"),
        ("explain_last_failure", {"worker": "mian"}, "did you mean 'main'?"),
    ],
)
def test_bad_input_answers_one_line(client, tool, arguments, problem):
    """A wrong call is an error of one line that names the argument and the cure."""
    failed, text = client.reply(tool, **arguments)
    assert failed, text
    assert problem in text
    assert "\n" not in text


def test_what_a_client_sends_wrongly_is_refused(client):
    """Lines that are no messages do not stop the server, and it ends with its input."""
    ping = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
    surrogate = rb'{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"run_sql",'
    surrogate += rb'"arguments":{"statement":"SELECT \'\ud800\'"}}}'
    lines = b"\n".join([b'{"jsonrpc"', b"[]", b"\xff\xfe", surrogate, ping, b""])
    words = [sys.executable, "-m", "edgesim.cli", "mcp"]
    with subprocess.Popen(words, stdin=-1, stdout=-1, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(lines)
        process.stdin.flush()
        replies = (json.loads(line) for line in process.stdout)
        assert {"jsonrpc": "2.0", "id": 1, "result": {}} in replies
        process.stdin.close()
        assert process.wait(60) == 0


def test_the_extra_is_named(tmp_path: Path):
    """Without the SDK the command names the package to install."""
    program = "import sys; sys.modules['mcp_types'] = None\nfrom edgesim.cli import main\n"
    words = [sys.executable, "-c", f"{program}sys.exit(main(['mcp']))"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "edgesim: edgesim mcp needs the package 'mcp'; "
        "install it with: pip install 'edgesim[mcp]'\n"
    )
