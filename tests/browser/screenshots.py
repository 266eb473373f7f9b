"""Take the pictures of the web pages in docs/images: ``python -m tests.browser.screenshots``."""

import gzip
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.processes import ROOT, WORKERS, dev

IMAGES = ROOT / "docs" / "images"
EVENTS = ROOT / "examples" / "game-events" / "events.ndjson.gz"
REQUESTS = 300
PAGES = {"flow": "Flow", "invocations": "Invocations", "find/player-7731": "Find an event"}


def main() -> None:
    """Run the example project on some of its events, and save one picture for each page."""
    IMAGES.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as state,
        dev(WORKERS, Path(state), "--no-reload") as running,
    ):
        with gzip.open(EVENTS) as lines:
            for line, _ in zip(lines, range(REQUESTS), strict=False):
                running.request(body=line)
        running.post({"event": "kill", "player_id": "player-7731", "ts": 1_767_225_600_000})
        running.drain()
        running.post({"event": "die", "player_id": "player-7731", "ts": 1_767_225_600_999})
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path="/usr/bin/chromium", args=["--no-sandbox"]
            )
            page = browser.new_page(viewport={"width": 1366, "height": 640})
            for name, heading in PAGES.items():
                page.goto("about:blank")
                page.goto(f"{running.url}/cdn-cgi/edgesim/#/{name}")
                page.get_by_role("heading", name=heading, level=2).wait_for()
                page.wait_for_timeout(2000)  # the first answers are drawn
                page.screenshot(path=IMAGES / f"{name.partition('/')[0]}.png")
            browser.close()


if __name__ == "__main__":
    main()
