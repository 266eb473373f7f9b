"""`edgesim dev` without anything that Linux alone has: what it still holds, and what it shows."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgesim.system import VARIABLE
from tests.processes import Dev, dev, edgesim

WORKER = """
import os
from workers import Response, WorkerEntrypoint

def passwords():
    return open("/etc/passwd").read()

def socket():
    import socket
    return socket.create_connection(("127.0.0.1", 80))

def program():
    return os.system("true")

def fork():
    return os.fork()

def kill():
    return os.kill(os.getppid(), 9)

def loop():
    while True:
        pass

def leave():
    os._exit(1)

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        act = globals().get(request.url.rpartition("/")[2], os.getpid)
        try:
            return Response(str(act()))
        except PermissionError:
            return Response("refused")
"""
WRANGLER = {
    "name": "main",
    "main": "main.py",
    "compatibility_date": "2026-10-01",
    "compatibility_flags": ["python_workers"],
    "limits": {"cpu_ms": 100},
}


@pytest.fixture(scope="module", params=["process", "warm"])
def level(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("portable") / "state"


@pytest.fixture(scope="module")
def running(level: str, state: Path) -> Iterator[Dev]:
    """A portable `edgesim dev` of one Worker."""
    main = state.parent / "project" / "main" / "main.py"
    if not main.exists():
        main.parent.mkdir(parents=True)
        main.write_text(WORKER)
        (main.parent / "wrangler.jsonc").write_text(json.dumps(WRANGLER))
        (main.parents[1] / "edgesim.toml").write_text('workers = ["main"]\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "1")
        with dev(main.parents[1], state, "--no-reload", "--isolation", level) as server:
            yield server
            assert server.stop() == 0


def test_the_guard_is_named(running):
    """The log names the audit hook as the only guard, as a warning."""
    running.wait_log('"guards"')
    (line,) = (json.loads(line) for line in running.log if '"guards"' in line)
    assert (line["level"], line["guards"]) == ("warning", "audit hook")


@pytest.mark.parametrize("name", ["passwords", "socket", "program", "fork", "kill"])
def test_the_audit_hook_refuses(running, name):
    """Files, sockets, programs, forks and signals of Python code raise PermissionError."""
    assert running.request(f"/{name}", b"") == (200, b"refused")


def test_invocations_share_a_process_only_where_they_should(running, level):
    """At `process` each invocation has a process of its own; at `warm` honest ones share one."""
    processes = {running.request("/", b"")[1] for _ in range(3)}
    assert len(processes) == (1 if level == "warm" else 3)


@pytest.mark.parametrize(("name", "outcome"), [("loop", "exceededCpu"), ("leave", "internalError")])
def test_an_invocation_that_ends_badly_ends_alone(running, name, outcome):
    """A loop ends by its CPU limit, an exit of the process ends it; the next one is served."""
    assert running.request(f"/{name}", b"")[0] >= 500
    running.wait_log(f'"{outcome}"')
    assert running.request("/", b"")[0] == 200


def test_the_state_has_one_owner(running, state):
    """A second process on the same state directory is refused."""
    second = edgesim("dev", state.parent / "project", "--port", "0", "--state", state)
    assert second.returncode == 2
    assert "is in use by process" in second.stderr


def test_metrics_leave_out_what_is_not_known(running):
    """The CPU time of the platform is there; its memory, files and children need /proc."""
    text = running.request("/cdn-cgi/edgesim/metrics", method="GET")[1].decode()
    assert "process_cpu_seconds_total " in text
    assert "process_resident_memory_bytes" not in text
    assert "edgesim_child_processes" not in text
