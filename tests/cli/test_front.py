"""Routes, environments, request.cf and manual schedules, over real HTTP."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Dev, dev, edgesim
from tests.simulated import write_worker

ENTRY = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        seen = [self.env.ME, request.cf.country, request.headers["cf-ipcountry"]]
        return Response(json.dumps(seen))
    async def scheduled(self, controller, env=None, ctx=None):
        print(f"cron={controller.cron} time={controller.scheduledTime}")
        if controller.cron == "0 0 1 1 *":
            raise RuntimeError("not on New Year")
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    folder = tmp_path_factory.mktemp("project")
    (folder / "edgesim.toml").write_text(
        'workers = ["main", "api"]\nentry = "main"\n[cf]\ncountry = "JP"\n'
    )
    for name in ("main", "api"):
        environment = {"staging": {"vars": {"ME": f"{name} of staging"}}}
        routes = ["https://api.example.com/v1/*"] if name == "api" else []
        write_worker(folder, name, ENTRY, vars={"ME": name}, env=environment, routes=routes)
    state = tmp_path_factory.mktemp("state")
    with dev(folder, state, "--no-reload", "--env", "staging") as running:
        yield running


def who(server: Dev, host: str, path: str = "/") -> str:
    status, body = server.request(path, method="GET", headers={"Host": host})
    assert status == 200
    name, country, header = json.loads(body)
    assert (country, header) == ("JP", "JP")
    return str(name)


def test_a_request_goes_where_its_host_and_path_lead(server):
    """By route (either scheme), by name, else to the entry Worker; all from the environment."""
    assert who(server, "api.example.com", "/v1/x") == "api of staging"
    assert who(server, "api.example.com:8787", "/v1/") == "api of staging"
    assert who(server, "api-staging.localhost") == "api of staging"
    assert who(server, "api.example.com", "/v2") == "main of staging"
    assert who(server, "127.0.0.1") == "main of staging"


def test_a_schedule_by_hand(server):
    """The handler runs with that cron and time; a failure is 500, a wrong expression 400."""
    path = "/cdn-cgi/handler/scheduled?cron=*/5+*+*+*+*&time=1767225600000"
    assert server.request(path, method="GET") == (200, b"ok\n")
    server.wait_log("cron=*/5 * * * * time=1767225600000")
    assert server.request("/cdn-cgi/handler/scheduled?cron=0+0+1+1+*", method="GET")[0] == 500
    status, body = server.request("/cdn-cgi/handler/scheduled?cron=61+*+*+*+*", method="GET")
    assert (status, body) == (400, b"cron '61 * * * *': '61' is not from 0 to 59\n")
    by_name = {"Host": "api-staging.localhost"}
    assert server.request(path, method="GET", headers=by_name)[0] == 200


def test_an_environment_that_is_not_there_is_one_line(tmp_path):
    """Exit 2, with the file and the environments that exist."""
    (tmp_path / "edgesim.toml").write_text('workers = ["main"]\n')
    write_worker(Path(tmp_path), "main", ENTRY, env={"staging": {}})
    failed = edgesim("dev", tmp_path, "--port", "0", "--env", "prod")
    assert failed.returncode == 2
    assert "wrangler.json: env: there is no env.prod; known: staging" in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1
