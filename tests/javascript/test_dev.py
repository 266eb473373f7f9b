"""`edgesim dev` with a Worker in TypeScript: reload on save, errors with their place."""

import time

import pytest

from tests.javascript_world import programs, write_javascript
from tests.processes import dev

WAIT_SECONDS = 60.0
GOOD = """\
const name: string = "%s";
export default {
  async fetch(request: Request): Promise<Response> {
    if (new URL(request.url).pathname === "/throw") {
      throw new RangeError("no luck");
    }
    return new Response(name);
  },
};
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with one Worker, and its source file."""
    found = programs()
    monkeypatch.setenv("EDGESIM_WORKERD", str(found.workerd))
    monkeypatch.setenv("EDGESIM_ESBUILD", str(found.esbuild))
    write_javascript(tmp_path, "main", GOOD % "first", main="src/index.ts")
    return tmp_path / "main"


def until_answered(running, body):
    """Wait until the Worker responds with these bytes; return the seconds that it took."""
    begun = time.monotonic()
    while running.request(method="GET") != (200, body):
        assert time.monotonic() - begun < WAIT_SECONDS, "".join(running.log)
        time.sleep(0.01)
    return time.monotonic() - begun


def until_watching(running, source):
    """Save the file until that is noticed: a watch misses what comes before it has begun."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not any('"reloaded"' in line for line in running.log):
        assert time.monotonic() < deadline, "".join(running.log)
        source.touch()
        time.sleep(0.3)


def test_a_saved_file_is_served_soon(project, tmp_path, capsys):
    """The next version serves; the time from save to response is printed."""
    source = project / "src" / "index.ts"
    with dev(project, tmp_path / "state") as running:
        until_answered(running, b"first")
        until_watching(running, source)
        times = []
        for number in range(5):
            source.write_text(GOOD % f"version {number}")
            times.append(until_answered(running, f"version {number}".encode()))
        assert running.stop() == 0
    with capsys.disabled():
        print(f"\nfrom save to response: {', '.join(f'{each:.2f}' for each in times)} s")


def test_a_syntax_error_keeps_the_old_version(project, tmp_path):
    """The log names file, line and column; the mended file is served."""
    source = project / "src" / "index.ts"
    with dev(project, tmp_path / "state") as running:
        until_answered(running, b"first")
        until_watching(running, source)
        source.write_text((GOOD % "broken").replace("return new", "return new new("))
        running.wait_log("not reloaded, the old version goes on", "src/index.ts:7:", "main")
        assert running.request(method="GET") == (200, b"first")
        source.write_text(GOOD % "mended")
        until_answered(running, b"mended")
        assert running.stop() == 0


def test_an_exception_has_its_place_in_the_source(project, tmp_path):
    """The response and the log name the line that was written."""
    with dev(project, tmp_path / "state", "--no-reload") as running:
        status, body = running.request("/throw", method="GET")
        assert (status, body) == (
            500,
            b"RangeError: no luck\n    at Object.fetch (src/index.ts:5:13)",
        )
        running.wait_log("uncaught exception", "RangeError: no luck", "src/index.ts:5:13")
        assert running.stop() == 0
