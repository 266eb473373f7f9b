"""The web pages, in a real browser on a real project."""

import io
import json
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Dialog, Locator, Page, Response, expect

from tests.processes import WORKERS, Dev, dev
from tests.simulated import write_worker

EVENT = {"event": "kill", "player_id": "player-7731", "ts": 1_767_225_600_000}
PAGES = (
    "flow",
    "invocations",
    "find/7731",
    "queues",
    "queues/ingest",
    "r2",
    "r2/events",
    "sql",
    "cost",
    "faults",
)
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"
INLINE = ("--isolation", "inline")
"""No page depends on the isolation level, and without zygotes a start takes half the time."""


@pytest.fixture
def running(tmp_path) -> Iterator[Dev]:
    with dev(WORKERS, tmp_path, "--no-reload", *INLINE) as running:
        yield running


def show(page: Page, running: Dev, name: str) -> None:
    """Open a page anew, also if only its hash differs from the current one."""
    page.goto("about:blank")
    page.goto(f"{running.url}/cdn-cgi/edgesim/#/{name}")


def node(page: Page, kind: str, name: str) -> Locator:
    return page.locator(f'[data-node="{kind}:{name}"]')


def test_the_flow_moves(running, page):
    """Events are counted in each node they pass, and the windows can be ended by a button."""
    show(page, running, "flow")
    expect(node(page, "worker", "receiver")).to_contain_text("invocations0")
    running.post([EVENT, EVENT | {"event": "die"}])
    expect(node(page, "worker", "receiver")).to_contain_text("invocations1")
    expect(node(page, "pipeline", "events")).to_contain_text("waiting2")
    expect(node(page, "pipeline", "events")).to_contain_text(re.compile(r"ends in\d+ s"))
    page.get_by_role("button", name="End windows and deliver everything").click()
    expect(node(page, "bucket", "events")).to_contain_text("objects1")
    expect(node(page, "queue", "ingest")).to_contain_text("delivered1")
    assert running.sql("SELECT count() FROM events") == [{"count()": 2}]


def test_one_window_is_ended_by_a_click(running, page):
    """A click on a pipeline ends its window alone."""
    running.post(EVENT)
    show(page, running, "flow")
    expect(node(page, "pipeline", "events")).to_contain_text("waiting1")
    node(page, "pipeline", "events").click()
    expect(node(page, "bucket", "events")).to_contain_text("objects1")


def test_an_event_is_found_in_its_row(running, page):
    """The search follows one event from its request to its row."""
    running.post([EVENT | {"player_id": "other"}, EVENT])
    running.drain()
    show(page, running, "find")
    page.get_by_label("Text").fill("player-7731")
    page.get_by_role("button", name="Find").click()
    expect(page.get_by_text("Found in 4 places.")).to_be_visible()
    stages = page.locator("tbody tr td:first-child")
    assert stages.all_inner_texts() == ["request", "log", "object", "table"]
    show(page, running, "find/nobody-has-this")
    expect(page.get_by_text("Found nowhere in this project.")).to_be_visible()


def test_an_exception_is_shown_with_its_line(tmp_path, page):
    """A handler that raises is a failed invocation with the line of its source."""
    write_worker(
        tmp_path,
        "broken",
        """
        class Default(WorkerEntrypoint):
            async def fetch(self, request):
                print("about to fail")
                raise ValueError("on purpose")
        """,
    )
    (tmp_path / "edgesim.toml").write_text('workers = ["broken"]\n')
    with dev(tmp_path, tmp_path / "state", "--no-reload") as running:
        show(page, running, "invocations")
        expect(page.get_by_text("No invocation yet")).to_be_visible()
        running.request("/why", method="GET")
        failed = page.locator('.invocation[data-outcome="exception"]')
        expect(failed).to_have_count(1)
        failed.locator("summary").first.click()
        expect(failed).to_contain_text("ValueError: on purpose")
        expect(failed).to_contain_text(re.compile(r"entry\.py.*line \d+"))
        expect(failed).to_contain_text("about to fail")
        page.get_by_label("Outcome").select_option("ok")
        expect(page.locator(".invocation")).to_have_count(0)


def test_dead_letters_are_redriven(tmp_path, page):
    """Dead letters can be looked at, sent back to their queue, and are then delivered."""
    source = """
    class Default(WorkerEntrypoint):
        async def fetch(self, request):
            await self.env.OUT.send({"order": 5512})
            return Response("ok")
        async def queue(self, batch, env, ctx):
            if not await self.env.FLAGS.head("repaired"):
                raise ValueError("not yet")
            batch.ackAll()
    """
    queues = {
        "producers": [{"binding": "OUT", "queue": "jobs"}],
        "consumers": [
            {
                "queue": "jobs",
                "max_retries": 0,
                "max_batch_timeout": 0,
                "dead_letter_queue": "jobs-dead",
            }
        ],
    }
    flags = [{"binding": "FLAGS", "bucket_name": "flags"}]
    write_worker(tmp_path, "w", source, queues=queues, r2_buckets=flags)
    (tmp_path / "edgesim.toml").write_text('workers = ["w"]\n[queues.jobs-dead]\n')
    with dev(tmp_path, tmp_path / "state", "--no-reload") as running:
        assert running.request("/")[0] == 200
        show(page, running, "flow")
        expect(node(page, "queue", "jobs-dead")).to_contain_text("backlog1")
        show(page, running, "queues/jobs-dead")
        expect(page.get_by_role("cell", name=re.compile("5512"))).to_be_visible()
        path = "/cdn-cgi/edgesim/r2?bucket=flags&key=repaired"
        assert running.request(path, b"yes", method="PUT")[0] == 200
        page.get_by_label("Target queue").select_option("jobs")
        page.get_by_role("button", name="Redrive all").click()
        expect(page.get_by_role("status")).to_contain_text("moved 1")
        expect(page.get_by_text("The queue is empty.")).to_be_visible()
        show(page, running, "flow")
        expect(node(page, "queue", "jobs")).to_contain_text("delivered1")


def test_a_message_is_sent_and_purged(running, page):
    """A message can be sent from the page; a purge asks first."""
    show(page, running, "queues/ingest-dlq")
    page.get_by_label("Body, JSON").fill('{"n": [1, "two"]}')
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("cell", name=re.compile("two"))).to_be_visible()
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.get_by_role("button", name="Purge").click()
    expect(page.get_by_role("cell", name=re.compile("two"))).to_be_visible()
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Purge").click()
    expect(page.get_by_text("The queue is empty.")).to_be_visible()


def test_delivery_is_paused_and_resumed(running, page):
    """The button shows what it will do, and the list of queues shows the state."""
    show(page, running, "queues/ingest")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    show(page, running, "queues")
    expect(page.get_by_role("row", name=re.compile("^ingest .*paused"))).to_be_visible()
    show(page, running, "queues/ingest")
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()


def test_objects_are_browsed(running, page):
    """Folders are opened, a packed NDJSON object is shown as a table, and it can be deleted."""
    running.post([EVENT, EVENT | {"player_id": "p2"}])
    running.drain()
    show(page, running, "r2")
    page.get_by_role("link", name="events").click()
    page.get_by_role("link", name=re.compile("event_date=")).click()
    page.get_by_role("link", name=re.compile("hr=")).click()
    page.get_by_role("button", name=re.compile(r"\.json\.gz")).click()
    preview = page.get_by_role("region", name="Preview")
    expect(preview.get_by_role("cell", name="player-7731")).to_be_visible()
    expect(preview.get_by_role("row")).to_have_count(3)
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("No object here.")).to_be_visible()


def test_parquet_is_a_table(running, page):
    """An uploaded Parquet object is shown as a table, with the types of its columns."""
    file = io.BytesIO()
    pq.write_table(pa.table({"player": ["<b>ada</b>", "bob"], "score": [7, 12]}), file)
    show(page, running, "r2/events")
    content = {"name": "t.parquet", "mimeType": "x/y", "buffer": file.getvalue()}
    page.get_by_label("Upload here").set_input_files(content)
    page.get_by_role("button", name="Upload", exact=True).click()
    page.get_by_role("button", name="t.parquet").click()
    preview = page.get_by_role("region", name="Preview")
    expect(preview.get_by_role("columnheader", name="score (int64)")).to_be_visible()
    expect(preview.get_by_role("cell", name="<b>ada</b>")).to_be_visible()
    expect(preview.get_by_text("The first 2 of 2 rows")).to_be_visible()


def test_sql_is_run(running, page):
    """A statement's rows are a table and a chart; an error is shown as ClickHouse says it."""
    show(page, running, "sql")
    page.get_by_label("Statement").fill(
        "SELECT concat('n', toString(number)) AS name, number FROM numbers(3)"
    )
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("cell", name="n2", exact=True)).to_be_visible()
    expect(page.get_by_role("img", name="number by name, at most 2")).to_be_visible()
    page.get_by_label("Statement").fill("SELECT nothing_like_this")
    page.get_by_label("Statement").press("Control+Enter")
    expect(page.get_by_role("alert")).to_contain_text("UNKNOWN_IDENTIFIER")


def test_events_are_never_markup(running, page):
    """HTML in an event, a URL or a message is shown as text on every page, and nothing runs."""
    dialogs: list[str] = []

    def dismiss(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", dismiss)
    running.post(EVENT | {"player_id": HOSTILE})
    running.request(f"/{HOSTILE.replace(' ', '%20')}?q={HOSTILE.replace(' ', '%20')}", method="GET")
    body = {"operation": "queue.send", "arguments": {"queue": "ingest-dlq", "body": HOSTILE}}
    assert running.request("/cdn-cgi/edgesim/operations", json.dumps(body).encode())[0] == 200
    running.drain()
    for name in (*PAGES, "queues/ingest-dlq", "find/onerror"):
        show(page, running, name)
        expect(page.get_by_role("heading", level=2)).to_be_visible()
        assert page.locator("main img").count() == 0
        assert page.locator("main script").count() == 0
    expect(page.get_by_text(HOSTILE).first).to_be_visible()
    assert dialogs == []


def test_nothing_is_asked_of_other_hosts(running, page):
    """The pages load everything from the project itself, and no answer is an error."""
    answers: list[Response] = []
    page.on("response", lambda answer: answers.append(answer))  # noqa: PLW0108 (a builtin cannot be marked)
    for name in PAGES:
        show(page, running, name)
        expect(page.get_by_role("heading", level=2)).to_be_visible()
    assert {urlsplit(answer.url).netloc for answer in answers} == {urlsplit(running.url).netloc}
    assert [answer.url for answer in answers if not answer.ok] == []


def test_every_control_has_a_name(running, page):
    """Inputs, buttons and links have accessible names, and each page has one main heading."""
    running.post(EVENT)
    running.drain()
    for name in PAGES:
        show(page, running, name)
        expect(page.get_by_role("heading", level=2)).to_have_count(1)
        for control in page.locator("input, select, textarea, button, a").all():
            names = control.evaluate(
                "e => [e.textContent, e.ariaLabel, ...[...(e.labels ?? [])].map(l => l.innerText)]"
            )
            assert any(each and each.strip() for each in names), control.evaluate(
                "e => e.outerHTML"
            )


def test_a_token_is_asked_for(tmp_path, page, monkeypatch):
    """With an admin token the pages show no data until it is given."""
    monkeypatch.setenv("EDGESIM_ADMIN_TOKEN", "s3cret-token")
    with dev(WORKERS, tmp_path, "--no-reload", *INLINE) as running:
        page.once("dialog", lambda dialog: dialog.dismiss())
        show(page, running, "queues")
        expect(page.get_by_role("status")).to_contain_text("token is missing")
        expect(page.get_by_role("table")).to_have_count(0)
        page.once("dialog", lambda dialog: dialog.accept("s3cret-token"))
        show(page, running, "sql")
        page.get_by_role("button", name="Run").click()
        expect(page.get_by_role("cell", name="events", exact=True)).to_be_visible()


def test_faults_are_switched_on_and_off(running, page):
    """A fault takes effect at once; every page shows it as text until it is switched off."""
    show(page, running, "faults")
    page.locator("#target").select_option("clickhouse.insert")
    page.locator("#kind").select_option("outage")
    page.get_by_role("button", name="Switch on", exact=True).click()
    expect(page.locator("#banner")).to_contain_text("Faults are on: clickhouse.insert outage")
    running.post([EVENT])
    running.request("/cdn-cgi/edgesim/drain?timeout=1", b"")
    assert running.sql("SELECT count() FROM events") == [{"count()": 0}]
    expect(page.locator("#rules td.number")).not_to_have_text("0")
    show(page, running, "queues")
    expect(page.locator("#banner")).to_contain_text("clickhouse.insert outage")
    page.get_by_role("link", name="Change").click()
    page.get_by_label("Amount and time").fill(HOSTILE)
    page.get_by_role("button", name="Switch on", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text(HOSTILE.split(maxsplit=1)[0])
    page.get_by_role("button", name="Switch all off").click()
    expect(page.locator("#banner")).to_be_hidden()
    running.drain()
    assert running.sql("SELECT count() FROM events") == [{"count()": 1}]
