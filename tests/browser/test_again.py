"""The page of one invocation, in a real browser: send it again, and record what is listed."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.processes import Dev, dev
from tests.simulated import write_worker

MAIN = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        await self.env.JOBS.sendBatch([{"body": {"n": 1}}, {"body": {"n": 2}}])
        print("<b>bold</b>")
        return Response("before")

    async def queue(self, batch, env, ctx):
        for message in batch.messages:
            print("message", message.body["n"])
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one Worker."""
    folder = tmp_path_factory.mktemp("again")
    queues = {
        "producers": [{"binding": "JOBS", "queue": "jobs"}],
        "consumers": [{"queue": "jobs", "max_batch_size": 2, "max_batch_timeout": 30}],
    }
    write_worker(folder, "main", MAIN, queues=queues)
    (folder / "edgesim.toml").write_text('workers = ["main"]\n')
    return folder


@pytest.fixture(scope="module")
def running(project: Path) -> Iterator[Dev]:
    with dev(project, project / "state", "--no-reload", "--isolation", "inline") as found:
        yield found


def test_a_request_is_sent_again_after_an_edit(running, project, page):
    """The page compares the outcome with that of the saved code, and links the repetition."""
    running.request("/shop?x=1", b"hello")
    page.goto(f"{running.url}/cdn-cgi/edgesim/#/invocations")
    row = page.locator(".invocation", has_text="/shop?x=1")
    row.locator("summary").first.click()
    row.get_by_role("link", name="Open").click()
    expect(page.get_by_text('"body": "hello"')).to_be_visible()
    page.get_by_role("button", name="Send again").click()
    comparison = page.get_by_role("region", name="Comparison")
    expect(comparison).to_contain_text("The outcome is the same")
    entry = project / "main" / "entry.py"
    entry.write_text(entry.read_text().replace('"before"', '"<i>after</i>"'))
    page.get_by_role("button", name="Send again").click()
    expect(comparison).to_contain_text("The outcome differs")
    expect(comparison).to_contain_text("Reloaded first: main")
    assert comparison.locator("tbody td").all_inner_texts() == ["body", "before", "<i>after</i>"]
    comparison.get_by_role("link", name="Invocation").click()
    expect(page.get_by_text("<b>bold</b>")).to_be_visible()


def test_one_message_is_sent_again(running, page):
    """A message of a batch can be sent alone."""
    running.request("/", b"")
    running.drain()
    page.goto(f"{running.url}/cdn-cgi/edgesim/#/invocations")
    row = page.locator(".invocation", has_text="queue jobs").first
    row.locator("summary").first.click()
    row.get_by_role("link", name="Open").click()
    messages = page.get_by_role("table", name="Messages of the batch")
    messages.get_by_role("row", name='"n": 2').get_by_role("button").click()
    comparison = page.get_by_role("region", name="Comparison")
    expect(comparison).to_contain_text("message 2")
    expect(comparison).to_contain_text("The outcome differs")


def test_the_listed_requests_are_recorded(running, page, tmp_path):
    """The button saves the requests that the filters leave on the screen."""
    for path in ("/kept/1", "/left", "/kept/2"):
        running.request(path, path.encode())
    page.goto(f"{running.url}/cdn-cgi/edgesim/#/invocations")
    page.get_by_label("Text").fill("/kept/")
    page.get_by_label("Text").press("Enter")
    expect(page.locator(".invocation")).to_have_count(2)
    with page.expect_download() as download:
        page.get_by_role("button", name="Record these as a fixture").click()
    assert download.value.suggested_filename == "events.ndjson"
    file = tmp_path / "events.ndjson"
    download.value.save_as(file)
    lines = [json.loads(line)["request"] for line in file.read_text().splitlines()]
    assert [(line["path"], line["body"]) for line in lines] == [
        ("/kept/1", "/kept/1"),
        ("/kept/2", "/kept/2"),
    ]
    expect(page.get_by_role("status").first).to_contain_text("recorded 2 requests")


def test_an_unknown_invocation_is_named(running, page):
    """A page of an invocation that is not kept says so."""
    page.goto(f"{running.url}/cdn-cgi/edgesim/#/invocation/{'0' * 8}-7")
    expect(page.get_by_role("alert")).to_contain_text("no invocation '00000000-7' is kept")
