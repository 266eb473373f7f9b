"""Every page under axe-core, in light and dark, empty and with content."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.browser.test_pages import EVENT, INLINE, PAGES
from tests.processes import ROOT, WORKERS, Dev, dev

AXE = ROOT / "tests" / "portability" / "node_modules" / "axe-core" / "axe.min.js"
WITH_ROWS = ("invocations", "find/7731", "queues", "r2", "r2/events")
"""The pages that have a table with rows after some traffic."""
FRAME = "#main h2"
CONTENT = "#main :is(tbody td, details)"
RUN = """
async () => {
  const { violations } = await axe.run(document, { resultTypes: ["violations"] });
  return violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html}`));
}
"""


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core; without it skip, or fail in CI."""
    if not AXE.is_file():
        if os.environ.get("CI") == "true":
            pytest.fail("axe-core is not installed")
        pytest.skip("axe-core is not installed (make portability)")
    return AXE.read_text()


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """A project without any traffic."""
    with dev(WORKERS, tmp_path_factory.mktemp("empty"), "--no-reload", *INLINE) as running:
        yield running


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """A project with events, an error, an object, messages and a fault."""
    folder: Path = tmp_path_factory.mktemp("used")
    with dev(WORKERS, folder, "--no-reload", *INLINE) as running:
        running.post([EVENT, EVENT | {"player_id": "<b>x</b>"}])
        running.request("/", b"not JSON")
        running.drain()
        yield running


def url_of(running: Dev, name: str) -> str:
    """The URL of a page."""
    return f"{running.url}/cdn-cgi/edgesim/#/{name}"


def violations(page: Page, axe: str, url: str, *, rows: bool) -> list[str]:
    """Return the violations of a page that axe-core finds, once its content is there."""
    page.goto("about:blank")
    page.goto(url)
    page.wait_for_selector(CONTENT if rows else FRAME)
    page.evaluate(axe)
    found: list[str] = page.evaluate(RUN)
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", ["empty", "used"])
def test_pages_are_accessible(request, page, axe, state, scheme):
    """axe-core finds no violation: names, roles, contrast, order of headings, landmarks."""
    running = request.getfixturevalue(state)
    page.emulate_media(color_scheme=scheme)
    found = {
        name: problems
        for name in PAGES
        if (
            problems := violations(
                page, axe, url_of(running, name), rows=state == "used" and name in WITH_ROWS
            )
        )
    }
    assert found == {}


def test_one_invocation_is_accessible(used, page, axe):
    """The page of an invocation, with its waterfall, has no violation either."""
    page.goto(url_of(used, "invocations"))
    identifier = page.locator("details.invocation").first.get_attribute("data-id")
    assert violations(page, axe, url_of(used, f"invocation/{identifier}"), rows=False) == []
