"""A state that is deleted, replaced or damaged: no unsaved data is acknowledged."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from edgesim.operations import PagedRows
from tests.cli.test_operations import fill
from tests.crash.crash_world import EVENT, records_by_object
from tests.processes import WORKERS, Dev, dev, edgesim

INLINE = ("--isolation", "inline")
"""No test here depends on the isolation level, and without zygotes a start takes half the time."""


def send(running: Dev, name: str) -> int:
    """Send one event to the Worker that responds 200 when it is in the pipeline's log."""
    body = json.dumps([EVENT | {"player_id": name}]).encode()
    return running.request("/", body, headers={"Host": "large-payload.localhost"})[0]


def replace_by_copy(state: Path) -> None:
    copy = state.with_name("copy")
    shutil.copytree(state, copy)
    state.rename(state.with_name("moved"))
    copy.rename(state)


def replace_by_link_to_copy(state: Path) -> None:
    copy = state.with_name("copy")
    shutil.copytree(state, copy)
    state.rename(state.with_name("moved"))
    state.symlink_to(copy)


WAYS: dict[str, Callable[[Path], None]] = {
    "deleted": shutil.rmtree,
    "replaced by a copy": replace_by_copy,
    "replaced by a link": replace_by_link_to_copy,
    "pipelines deleted": lambda state: shutil.rmtree(state / "pipelines"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_state_that_is_gone_is_noticed(tmp_path, way):
    """Sends are refused, health and drain name the reason, no second node starts, exit code 3."""
    state = tmp_path / "state"
    with dev(WORKERS, state, "--no-reload", *INLINE) as running:
        assert send(running, "before") == 200
        WAYS[way](state)
        for number in range(3):
            assert send(running, f"after-{number}") == 500
        status, body = running.request("/cdn-cgi/edgesim/health", method="GET")
        assert status == 503
        problem = json.loads(body)["problem"]
        assert str(state) in problem
        assert "deleted or replaced" in problem
        assert running.request("/cdn-cgi/edgesim/ready", method="GET")[0] == 503
        status, body = running.request("/cdn-cgi/edgesim/drain?timeout=20", b"")
        assert status == 503
        assert b"deleted or replaced" in body
        second = edgesim("dev", WORKERS, "--port", "0", "--state", state)
        assert second.returncode == 2
        assert "is in use by" in second.stderr
        assert running.stop() == 3
    assert sum("state deleted or replaced" in line for line in running.log) == 1


@pytest.mark.parametrize("part", ["r2", "r2/index.db", "r2/blobs", "queues.db", "owner.json"])
def test_a_part_of_the_state_that_is_gone_is_noticed(tmp_path, part):
    """Health names the missing part."""
    state = tmp_path / "state"
    with dev(WORKERS, state, "--no-reload", *INLINE) as running:
        assert running.request("/cdn-cgi/edgesim/health", method="GET")[0] == 200
        (state / part).rename(tmp_path / "moved")
        running.wait_log("state deleted or replaced")
        status, body = running.request("/cdn-cgi/edgesim/health", method="GET")
        assert status == 503
        assert str(state / part) in json.loads(body)["problem"]


def test_what_was_acknowledged_outlives_its_log(tmp_path):
    """Records whose log was deleted while the node ran still become an object when it stops."""
    state = tmp_path / "state"
    with dev(WORKERS, state, *INLINE, command="serve") as running:
        assert send(running, "kept") == 200
        shutil.rmtree(state / "pipelines")
        assert send(running, "refused") == 500
        assert running.stop() == 3
    objects = anyio.run(records_by_object, WORKERS, state)
    assert list(objects.values()) == [["kept"]]


@pytest.mark.parametrize("is_running", [False, True])
def test_a_damaged_object_is_not_got(tmp_path, is_running):
    """`edgesim r2 get` fails with one line, and does not change the target file."""
    state, out = tmp_path / "state", tmp_path / "out"
    content = bytes(range(256)) * 4000

    def r2(*arguments: object) -> tuple[int, str]:
        done = edgesim("r2", *arguments, "--project", WORKERS, "--state", state)
        return done.returncode, done.stderr

    (tmp_path / "in").write_bytes(content)
    assert r2("put", "events", "a", tmp_path / "in")[0] == 0
    assert r2("get", "events", "a", "--out", out)[0] == 0
    assert out.read_bytes() == content
    out.write_bytes(b"from before")
    [blob] = (state / "r2" / "blobs").iterdir()
    damaged = bytearray(blob.read_bytes())
    damaged[900_000] ^= 0x04
    blob.write_bytes(damaged)

    def get_fails() -> None:
        code, said = r2("get", "events", "a", "--out", out)
        assert code == 3
        assert "Traceback" not in said
        assert [line for line in said.splitlines() if line.startswith("edgesim: ")]
        assert out.read_bytes() == b"from before"
        assert [path.name for path in tmp_path.glob(".out*")] == []

    if is_running:
        with dev(WORKERS, state, "--no-reload", *INLINE) as running:
            get_fails()
            running.wait_log("r2 object damaged")
            assert running.request("/cdn-cgi/edgesim/health", method="GET")[0] == 200
    else:
        get_fails()


def test_a_damaged_small_object_is_no_200(tmp_path):
    """The admin endpoint returns 503 if it has not sent the status yet."""
    state = tmp_path / "state"
    with dev(WORKERS, state, "--no-reload", *INLINE) as running:
        path = "/cdn-cgi/edgesim/r2?bucket=events&key=a"
        assert running.request(path, b"0123456789", method="PUT")[0] == 200
        [blob] = (state / "r2" / "blobs").iterdir()
        blob.write_bytes(b"0123456799" + blob.read_bytes()[10:])
        status, body = running.request(path, method="GET")
        assert status == 503
        assert b"damaged" in body


@pytest.mark.parametrize("sizes", [[], [0], [1], [3], [3, 1], [2, 2, 2]])
def test_rows_are_one_json_array(sizes):
    """A listing of several pages is one JSON array with all rows in order."""
    rows = iter(range(100))

    async def collect() -> bytes:
        async def pages():
            for size in sizes:
                yield [{"n": next(rows)} for _ in range(size)]

        return b"".join([piece async for piece in PagedRows(pages()).as_json()])

    assert json.loads(anyio.run(collect)) == [{"n": n} for n in range(sum(sizes))]


def test_a_long_listing_is_streamed(tmp_path):
    """A running and a stopped project list the same objects, of several pages."""
    state = tmp_path / "state"
    keys = [f"k{number:04}" for number in range(501)]
    fill(state, keys)

    def listed() -> list[str]:
        done = edgesim("r2", "ls", "events", "--project", WORKERS, "--state", state)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    with dev(WORKERS, state, "--no-reload", *INLINE) as running:
        lines = listed()
        assert running.stop() == 0
    assert [line.partition("\t")[0] for line in lines] == keys
    assert listed() == lines
