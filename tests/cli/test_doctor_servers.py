"""`edgesim doctor` on real servers, each with one fault: one problem, its cure, nothing left."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import anyio
import miniopy_async.time
import nats
import pytest

from edgesim import doctor
from edgesim.clock import Clock
from edgesim.config import Environment, load_project
from edgesim.config.project import Overrides
from edgesim.model import Diagnosis
from edgesim.queues import probe as queues_probe
from edgesim.queues.memory import open_queues
from tests.processes import edgesim, freeze
from tests.servers_clickhouse import Server, prepared_server
from tests.servers_nats import NatsServer
from tests.servers_s3 import S3Server, Seaweed, seaweedfs_process

pytestmark = [pytest.mark.nats_server, pytest.mark.s3_server, pytest.mark.clickhouse_server]

ACCOUNT = 'workers = ["main"]\nisolation = "inline"\n[r2.events]\n'
WRANGLER = {
    "name": "main",
    "main": "main.py",
    "compatibility_date": "2026-10-01",
    "compatibility_flags": ["python_workers"],
    "r2_buckets": [{"binding": "LATER", "bucket_name": "later"}],
}
WORKER = """
from workers import Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("served")
"""
READER = """<reader><password>r</password><networks><ip>127.0.0.1</ip></networks>
<profile>reader</profile><quota>default</quota></reader></users>"""
KEYS = [
    ("edgesim", "edgesim-secret", ["Admin", "Read", "Write", "List", "Tagging"]),
    ("reader", "reader-secret", ["Read", "List"]),
]
NO_CREATE = """authorization { users: [ { user: u, password: p, permissions:
{ publish: { deny: ["$JS.API.STREAM.CREATE.>"] } } } ] }
"""


class Shared:
    """The healthy servers, and a project that uses them."""

    def __init__(self, s3: Seaweed, clickhouse: Server, nats_server: NatsServer, folder: Path):
        self.s3 = s3
        self.clickhouse = clickhouse
        self.folder = folder
        self.project = folder / "project"
        worker = self.project / "main"
        worker.mkdir(parents=True)
        (self.project / "edgesim.toml").write_text(ACCOUNT)
        (worker / "wrangler.jsonc").write_text(json.dumps(WRANGLER))
        (worker / "main.py").write_text(WORKER)
        self.urls = {
            "r2": f"s3://{s3.server.address}?secure=false&region=us-east-1",
            "queues": f"nats://{nats_server.address}/doctor",
            "clickhouse": f"clickhouse+http://127.0.0.1:{clickhouse.http}",
        }
        self.environment = {
            "EDGESIM_S3_ACCESS_KEY": "edgesim",
            "EDGESIM_S3_SECRET_KEY": "edgesim-secret",
            "EDGESIM_CLICKHOUSE_USER": "default",
            "EDGESIM_CLICKHOUSE_PASSWORD": "secret",
        }

    def examine(self, *clock: Clock, **given: str | None) -> list[Diagnosis]:
        """Run the doctor with some URLs or variables replaced and return its findings."""
        urls = {name: given.pop(name, None) or url for name, url in self.urls.items()}
        variables = {name: value or "" for name, value in {**self.environment, **given}.items()}
        environment = Environment.read(variables)
        overrides = Overrides(
            state=self.folder / "state",
            r2=urls["r2"],
            queues=urls["queues"],
            clickhouse=urls["clickhouse"],
        )
        project = load_project(self.project, overrides, environment)

        async def run() -> list[Diagnosis]:
            found = doctor.examine(project, environment, *clock or [Clock()], running=False)
            return [finding async for finding in found]

        return anyio.run(run)

    def problem(self, **given: str | None) -> Diagnosis:
        """Return the only problem found; assert that there is just one."""
        found = self.examine(**given)
        problems = [finding for finding in found if finding.status == "problem"]
        assert len(problems) == 1, found
        assert "\n" not in problems[0].said + problems[0].cure
        return problems[0]


@pytest.fixture(scope="module")
def shared(nats: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """All three servers, with a user and keys that have read access only."""
    folder = tmp_path_factory.mktemp("doctor")
    for name in ("s3", "clickhouse"):
        (folder / name).mkdir()
    known = [
        {"name": key, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
        for key, secret, actions in KEYS
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": known}))
    clickhouse = prepared_server(folder / "clickhouse", "secret")
    text = clickhouse.config.read_text()
    reading = "<reader><readonly>1</readonly></reader></profiles>"
    text = text.replace("</profiles>", reading).replace("</users>", READER)
    clickhouse.config.write_text(text)
    with seaweedfs_process(folder / "s3", f"-s3.config={folder / 's3.json'}") as s3:
        clickhouse.start()
        try:
            yield Shared(s3, clickhouse, nats, folder)
        finally:
            clickhouse.kill()


@contextmanager
def other_nats(folder: Path, extra: str = "", *, jetstream: bool = True) -> Iterator[str]:
    """Run a NATS server with another configuration and yield its URL."""
    server = NatsServer(folder, "other", extra, jetstream=jetstream)
    try:
        server.start()
        server.wait()
        yield f"nats://{server.address}/doctor"
    finally:
        server.kill()


async def _there(server: S3Server, url: str) -> tuple[list[str], dict[str, list[str]]]:
    """Return the streams, and the objects of each bucket."""
    client = await nats.connect(url.rpartition("/")[0])
    streams = [each.config.name for each in await client.jetstream().streams_info()]
    await client.close()
    async with server.client() as s3:
        buckets = {
            bucket.name: [
                str(each.object_name) async for each in s3.list_objects(bucket.name, recursive=True)
            ]
            for bucket in await s3.list_buckets()
        }
    return [name for name in streams if name and "doctor" in name], buckets


def test_servers_that_are_well(shared):
    """Every check is ok, and the doctor leaves no stream, object or bucket behind."""

    async def make() -> None:
        async with shared.s3.server.client() as s3:
            await s3.make_bucket("events")

    anyio.run(make)
    before = anyio.run(_there, shared.s3.server, shared.urls["queues"])
    found = shared.examine()
    assert {finding.check for finding in found if finding.status == "ok"} >= {
        *("r2", "queues", "clickhouse")
    }
    assert not [finding for finding in found if finding.status == "problem"]
    assert not [finding for finding in found if "left behind" in finding.said]
    assert any("buckets: events, later" in finding.said for finding in found)
    after = anyio.run(_there, shared.s3.server, shared.urls["queues"])
    assert after == before
    assert after[0] == []
    assert after[1]["events"] == []
    assert "later" not in after[1]


@pytest.mark.parametrize(
    ("given", "said", "cure"),
    [
        ({"r2": "s3://127.0.0.1:1?secure=false"}, "Connect call failed", "start it"),
        ({"r2": "s3://NATS?secure=false&region=x"}, "not S3's", "the port"),
        ({"r2": "s3://CLICKHOUSE?secure=false&region=x"}, "not S3's", "the port"),
        ({"r2": "s3://S3?region=us-east-1"}, "SSL", "secure=false"),
        ({"EDGESIM_S3_SECRET_KEY": "wrong"}, "SignatureDoesNotMatch", "EDGESIM_S3_SECRET_KEY"),
        ({"EDGESIM_S3_ACCESS_KEY": "nobody"}, "InvalidAccessKeyId", "EDGESIM_S3_ACCESS_KEY"),
        ({"EDGESIM_S3_ACCESS_KEY": None}, "needs an access key", "EDGESIM_S3_ACCESS_KEY"),
    ],
)
def test_what_is_wrong_with_s3(shared, given, said, cure):
    """Server off, another server's port, TLS on a plain port, wrong keys, no keys."""
    places = {
        "NATS": shared.urls["queues"].removeprefix("nats://").partition("/")[0],
        "CLICKHOUSE": f"127.0.0.1:{shared.clickhouse.http}",
        "S3": shared.s3.server.address,
    }
    for name, place in places.items():
        given = {
            key: value and value.replace(f"//{name}?", f"//{place}?")
            for key, value in given.items()
        }
    found = shared.problem(**given)
    assert (found.check, said in found.said, cure in found.cure) == ("r2", True, True), found


def test_keys_that_may_only_read(shared):
    """Each bucket is a problem that names it, also one that does not exist and cannot be made."""
    found = shared.examine(EDGESIM_S3_ACCESS_KEY="reader", EDGESIM_S3_SECRET_KEY="reader-secret")
    problems = [finding for finding in found if finding.status == "problem"]
    assert [finding.check for finding in problems] == ["r2", "r2"]
    for problem in problems:
        assert "AccessDenied" in problem.said
        assert "read, write and delete" in problem.cure


@pytest.mark.parametrize(
    ("url", "said", "cure"),
    [
        ("nats://127.0.0.1:1", "Connect call failed", "nats-server running"),
        ("nats://S3", "TimeoutError", "nats-server running"),
        ("nats://NATS/x?replicas=3", "replicas > 1 not supported", "a cluster of as many"),
        ("nats://NATS/x?tls=true", "does not ask for TLS", "tls=true"),
    ],
)
def test_what_is_wrong_with_nats(shared, url, said, cure):
    """Server off, another server's port, replicas without a cluster, TLS on a plain port."""
    place = shared.urls["queues"].removeprefix("nats://").partition("/")[0]
    url = url.replace("S3", shared.s3.server.address).replace("NATS", place)
    found = shared.problem(queues=url)
    assert (found.check, said in found.said, cure in found.cure) == ("queues", True, True), found


def test_nats_without_jetstream(shared, tmp_path):
    """The doctor reports it at once, with the line to add to the server's configuration."""
    with other_nats(tmp_path, jetstream=False) as url:
        found = shared.problem(queues=url)
    assert "JetStream is not enabled" in found.said
    assert "store_dir" in found.cure


@pytest.mark.parametrize(
    ("rights", "given", "said", "cure"),
    [
        ("authorization { user: u, password: p }\n", {}, "Authorization", "EDGESIM_NATS_PASSWORD"),
        (
            "authorization { user: u, password: p }\n",
            {"EDGESIM_NATS_USER": "u", "EDGESIM_NATS_PASSWORD": "wrong"},
            *("Authorization", "EDGESIM_NATS_PASSWORD"),
        ),
        (
            NO_CREATE,
            {"EDGESIM_NATS_USER": "u", "EDGESIM_NATS_PASSWORD": "p"},
            *("may not publish to $JS.API.STREAM.CREATE.", "give the user that right"),
        ),
        ("max_payload: 64KB\n", {}, "a message is too large", "max_payload"),
    ],
)
def test_what_a_nats_server_refuses(shared, tmp_path, rights, given, said, cure):
    """No password, a wrong one, too few rights, a message size limit that is too low."""
    with other_nats(tmp_path, rights) as url:
        found = shared.problem(queues=url, **given)
    assert (found.check, said in found.said, cure in found.cure) == ("queues", True, True), found
    assert "wrong" not in found.said


def test_rights_that_are_enough(shared, tmp_path):
    """The rights that docs/reference/queues.md names are enough."""
    rights = """authorization { users: [ { user: u, password: p, permissions: {
    publish: ["$JS.API.>", "$JS.ACK.>", "doctor.>", "doctor-changed.*", "doctor-claims"],
    subscribe: ["_INBOX.>", "doctor-changed.*"] } } ] }
    """
    with other_nats(tmp_path, rights) as url:
        found = shared.examine(queues=url, EDGESIM_NATS_USER="u", EDGESIM_NATS_PASSWORD="p")
    assert [each.status for each in found if each.check == "queues"] == ["ok"], found


@pytest.mark.parametrize(
    ("given", "said", "cure"),
    [
        ({"clickhouse": "clickhouse+http://127.0.0.1:1"}, "out of reach", "start the server"),
        ({"clickhouse": "clickhouse+http://S3"}, "not ClickHouse", "8123"),
        ({"clickhouse": "clickhouse+http://HTTP/none"}, "Code 81", "create it there"),
        ({"EDGESIM_CLICKHOUSE_PASSWORD": "wrong"}, "Code 193", "EDGESIM_CLICKHOUSE_PASSWORD"),
        (
            {"clickhouse": "clickhouse://NATIVE", "EDGESIM_CLICKHOUSE_PASSWORD": "wrong"},
            *("Code 193", "EDGESIM_CLICKHOUSE_PASSWORD"),
        ),
        (
            {"EDGESIM_CLICKHOUSE_USER": "reader", "EDGESIM_CLICKHOUSE_PASSWORD": "r"},
            *("may only read", "let it insert"),
        ),
    ],
)
def test_what_is_wrong_with_clickhouse(shared, given, said, cure):
    """Server off, another server's port, no such database, wrong password, a read-only user."""
    places = {
        "S3": shared.s3.server.address,
        "HTTP": f"127.0.0.1:{shared.clickhouse.http}",
        "NATIVE": f"127.0.0.1:{shared.clickhouse.tcp}",
    }
    if "clickhouse" in given:
        scheme, _, rest = given["clickhouse"].partition("//")
        place, slash, database = rest.partition("/")
        url = f"{scheme}//{places.get(place, place)}{slash}{database}"
        given = given | {"clickhouse": url}
    found = shared.problem(**given)
    assert (found.check, said in found.said, cure in found.cure) == ("clickhouse", True, True)
    assert "wrong" not in found.said.replace("Wrong", "")


class Late(Clock):
    """A clock that is ten and a half minutes slow."""

    def now(self) -> float:
        return super().now() - 630


def test_clocks_that_differ(shared):
    """Ten minutes are a warning for S3 and for ClickHouse: both servers report their time."""
    found = shared.examine(Late())
    warned = {each.check: each for each in found if each.status == "warning" and "NTP" in each.cure}
    for check in ("r2", "clickhouse"):
        assert "its clock is 6" in warned[check].said, warned
        assert "ahead of" in warned[check].said


def test_a_clock_that_s3_refuses(shared, monkeypatch):
    """From 15 minutes on S3 refuses requests: the cure is the clock, not the keys."""
    ours = miniopy_async.time.utcnow
    monkeypatch.setattr(miniopy_async.time, "utcnow", lambda: ours() - timedelta(minutes=20))
    found = shared.problem()
    assert "RequestTimeTooSkewed" in found.said
    assert "NTP" in found.cure


def test_a_frozen_server_is_one_problem(shared, monkeypatch):
    """A frozen server does not delay the other checks beyond the doctor's timeout."""
    monkeypatch.setattr(doctor, "ANSWER_SECONDS", 4.0)  # enough for the others
    freeze(shared.clickhouse.process.pid)
    try:
        found = shared.problem()
    finally:
        shared.clickhouse.process.send_signal(signal.SIGCONT)
    assert found.check == "clickhouse"
    assert "did not answer within 4 s" in found.said


@pytest.mark.anyio
async def test_a_doctor_that_is_interrupted_leaves_no_queue():
    """Cancelled while it waits for its message, the doctor still removes its queue."""
    clock = Clock()

    class Hanging:
        def __init__(self, driver):
            self.driver = driver
            self.dropped = []
            self.reached = anyio.Event()

        async def lease(self, *arguments):
            self.reached.set()
            await anyio.sleep_forever()

        async def drop(self, queue):
            await anyio.lowlevel.checkpoint()
            self.dropped.append(queue)
            await self.driver.drop(queue)

        def __getattr__(self, name):
            return getattr(self.driver, name)

    async with open_queues("memory:", clock) as driver:
        hanging = Hanging(driver)

        async def run() -> None:
            async for _ in queues_probe.probe(hanging, clock, "memory:"):
                pass

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await hanging.reached.wait()
            assert len(await driver.names()) == 1
            tasks.cancel_scope.cancel()
        assert len(hanging.dropped) == 1
        assert await driver.names() == []


def test_the_command_and_the_start_say_the_same(shared, tmp_path, monkeypatch):
    """`doctor` prints one line per problem and exits 1; `serve` prints one line and exits 2."""
    monkeypatch.setenv("EDGESIM_S3_ACCESS_KEY", "edgesim")
    monkeypatch.setenv("EDGESIM_S3_SECRET_KEY", "wrong")
    monkeypatch.setenv("EDGESIM_CLICKHOUSE_PASSWORD", "secret")
    given = [shared.project, "--state", tmp_path / "state"]
    for name, url in shared.urls.items():
        given += [f"--{name}", url]
    done = edgesim("doctor", *given)
    problems = [line for line in done.stdout.splitlines() if line.startswith("problem")]
    assert (done.returncode, done.stderr, len(problems)) == (1, "", 1), done.stdout
    cure = "set EDGESIM_S3_ACCESS_KEY and EDGESIM_S3_SECRET_KEY to keys that it knows"
    assert problems[0].endswith(f"; cure: {cure}")
    refused = edgesim("serve", *given, "--port", 0)
    (line,) = refused.stderr.splitlines()
    assert (refused.returncode, refused.stdout) == (2, "")
    assert line.startswith(f"edgesim: {shared.project}/edgesim.toml: backends.r2: ")
    assert line.endswith(f"; {cure} (edgesim doctor says more)")
