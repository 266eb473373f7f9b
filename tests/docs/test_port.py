"""The handlers of the porting guide do the same in JavaScript and in Python."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import blocks_of
from tests.portability.node import node_for
from tests.processes import Dev, dev

PAGE = "docs/how-to/port-javascript.md"
REQUESTS: list[dict[str, Any]] = [
    {"method": "GET", "path": "/"},
    {"method": "GET", "path": "/?name=Ada"},
    {"method": "GET", "path": "/?name="},
    {"method": "GET", "path": "/?name=%C3%A9%20%26&name=b"},
    {"method": "PUT", "path": "/", "body": "x"},
    {"method": "POST", "path": "/", "body": "no JSON"},
    {"method": "POST", "path": "/", "body": "{}"},
    {"method": "POST", "path": "/", "body": '{"item": ""}'},
    {"method": "POST", "path": "/", "body": '{"item": "lamp"}'},
]
HEADERS = {"user-agent": "porting-guide"}
RUNNER = """
import { readFileSync } from "node:fs";
const { default: handler } = await import(process.argv[1]);
const { requests, headers } = JSON.parse(readFileSync(0, "utf8"));
const replies = [];
for (const { method, path, body } of requests) {
  const work = [];
  const env = { GREETING: "Hello", ORDERS: { send: async () => {} } };
  const request = new Request(`http://localhost${path}`, { method, body, headers });
  const response = await handler.fetch(request, env, { waitUntil: (done) => work.push(done) });
  await Promise.all(work);
  replies.push([response.status, await response.text()]);
}
console.log(JSON.stringify(replies));
"""


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the page shows."""
    folder = tmp_path_factory.mktemp("guide")
    for block in blocks_of(PAGE):
        if block.file is not None:
            (folder / block.file).parent.mkdir(exist_ok=True)
            (folder / block.file).write_text(block.text)
    (folder / "edgesim.toml").write_text('workers = ["greeter"]\n')
    return folder


@pytest.fixture(scope="module")
def greeter(guide: Path) -> Iterator[Dev]:
    """The Python handler of the page, served."""
    with dev(guide, guide / "state") as server:
        yield server


def test_both_handlers_send_the_same_replies(guide: Path, greeter: Dev):
    """The fetch handlers have equal status and body for each request."""
    command = [node_for("workerd"), "--input-type=module", "-e", RUNNER, guide / "js/greeter.mjs"]
    done = subprocess.run(
        [*map(str, command)],
        input=json.dumps({"requests": REQUESTS, "headers": HEADERS}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for request, (status, text) in zip(REQUESTS, json.loads(done.stdout), strict=True):
        body = request["body"].encode() if "body" in request else None
        found = greeter.request(request["path"], body, method=request["method"], headers=HEADERS)
        assert (found[0], _value(found[1].decode())) == (status, _value(text)), request


def _value(text: str) -> Any:
    """JSON without its spaces, which Python writes and JavaScript does not; else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def test_the_other_javascript_handlers_are_valid(guide: Path):
    """Node parses each JavaScript file of the page."""
    for file in sorted((guide / "js").iterdir()):
        command = [node_for("workerd"), "--check", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
