"""The SQL API of Analytics Engine on a running `edgesim dev`, and points after a kill."""

import http.client
import json
from urllib.parse import urlencode, urlsplit

import pytest

from tests.processes import dev

PATH = "/client/v4/accounts/acct/analytics_engine/sql"
WRANGLER = {
    "name": "weather",
    "main": "entry.py",
    "compatibility_date": "2026-10-01",
    "compatibility_flags": ["python_workers"],
    "analytics_engine_datasets": [{"binding": "WEATHER", "dataset": "weather"}],
}
WORKER = """
from workers import Response, WorkerEntrypoint

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        city = request.url.rpartition("/")[2]
        self.env.WEATHER.writeDataPoint({"blobs": [city], "doubles": [25, 0.5], "indexes": [city]})
        return Response("ok")
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A Worker that writes a point for each request."""
    folder = tmp_path_factory.mktemp("analytics")
    (folder / "wrangler.json").write_text(json.dumps(WRANGLER))
    (folder / "entry.py").write_text(WORKER)
    return folder


def call(server, method, path, body=None, **headers):
    """Send a request; return status, content type and text."""
    url = urlsplit(server.url)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
    connection.request(method, path, body, {"authorization": "Bearer any"} | headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, answer.headers["content-type"].partition(";")[0], text


def test_points_survive_a_kill_and_are_queried(project):
    """A point of an invocation that has ended is a row once, although edgesim was killed."""
    state = project / "state"
    with dev(project, state, "--no-reload") as server:
        for city in ("Oslo", "Rome", "Oslo"):
            assert server.request(f"/{city}", method="GET") == (200, b"ok")
        while server.stats()["datasets"]["weather"]["points"] < 3:
            pass
        server.process.kill()
    with dev(project, state, "--no-reload") as server:
        status, drained = server.request("/cdn-cgi/edgesim/drain")
        assert (status, json.loads(drained).get("left", {})) == (200, {})
        query = (
            "SELECT blob1 AS city, SUM(_sample_interval * double1) / SUM(_sample_interval) AS t, "
            "count() AS n FROM weather WHERE timestamp > NOW() - INTERVAL '1' HOUR "
            "GROUP BY city ORDER BY city"
        )
        status, kind, text = call(server, "POST", PATH, query)
        assert (status, kind) == (200, "application/json")
        assert json.loads(text) == {
            "meta": [
                {"name": "city", "type": "String"},
                {"name": "t", "type": "Float64"},
                {"name": "n", "type": "UInt64"},
            ],
            "data": [{"city": "Oslo", "t": 25, "n": "2"}, {"city": "Rome", "t": 25, "n": "1"}],
            "rows": 2,
        }
        lines = f"{query} FORMAT JSONEachRow"
        status, kind, text = call(server, "GET", f"{PATH}?{urlencode({'query': lines})}")
        assert [json.loads(line)["city"] for line in text.splitlines()] == ["Oslo", "Rome"]
        tables = call(server, "POST", PATH, "SHOW TABLES FORMAT TabSeparated")
        assert (tables[0], tables[2]) == (200, "weather\n")
        for bad, problem in {
            "SELECT nope FROM weather": "nope",
            "SELECT 1 FROM default.events": "a query reads one dataset",
            "DROP TABLE weather": "a statement begins with SELECT or SHOW",
            "": "Empty query",
        }.items():
            status, kind, text = call(server, "POST", PATH, bad)
            assert (status, kind, text.count("\n")) == (422, "text/plain", 1), text
            assert text.startswith("Input was invalid: ")
            assert problem in text
        assert call(server, "POST", PATH, b"\xff")[0] == 422
        assert call(server, "POST", PATH, "x" * 100_001)[0] == 413
        for wrong in (
            {"authorization": "Basic x"},
            {"origin": "http://evil.example"},
            {"x-forwarded-for": "1.2.3.4"},
        ):
            assert call(server, "POST", PATH, "SELECT 1", **wrong)[0] in {401, 403}
        assert server.stats()["analytics_sql"] == {"queries": 7}
