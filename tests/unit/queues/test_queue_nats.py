"""Queues on real NATS servers: several nodes, server failures and configuration errors."""

import contextlib
import inspect
import sys
import uuid
from itertools import chain

import anyio
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from structlog.testing import capture_logs

from edgesim.clock import Clock
from edgesim.config.queues import ConsumerConfig, PullConfig
from edgesim.drivers import opener
from edgesim.errors import ConfigError, RunError, UsageError
from edgesim.jetstream import connection as nats_connection
from edgesim.jetstream.url import place_of
from edgesim.model import BatchResult, Retry
from edgesim.queues.consumer import Consumer
from edgesim.queues.driver import NewMessage
from edgesim.queues.nats.driver import open_queues
from edgesim.queues.producer import MessageSendRequest, Queue
from edgesim.queues.pull import PullConsumer
from tests.processes import ROOT, WORKERS, edgesim
from tests.servers_nats import NatsServer, nats_cluster, nats_server

pytestmark = [pytest.mark.anyio, pytest.mark.nats_server]

HANGING_NODE = """
import sys
import anyio
from edgesim.clock import Clock
from edgesim.config.queues import ConsumerConfig
from edgesim.queues.consumer import Consumer
from edgesim.queues.nats.driver import open_queues
from edgesim.queues.producer import Queue

async def deliver(batch, metrics):
    print(len(batch), flush=True)
    await anyio.sleep_forever()

async def main():
    clock = Clock()
    async with open_queues(sys.argv[1], clock) as driver:
        settings = ConsumerConfig("q", max_batch_size=5, max_batch_timeout=0)
        await Consumer(Queue("q", driver, clock), settings, deliver, clock).run()

anyio.run(main)
"""


class Node:
    """A node: its driver and queue, and the batches that its consumer received."""

    def __init__(self, driver, clock):
        self.driver = driver
        self.queue = Queue("q", driver, clock)
        self.batches = []
        self.running = 0
        self.gate = anyio.Event()
        self._clock = clock

    def consumer(self, **settings):
        return Consumer(self.queue, ConsumerConfig("q", **settings), self.deliver, self._clock)

    async def deliver(self, batch, metrics):
        self.batches.append([m.body.decode() for m in batch])
        self.running += 1
        await self.gate.wait()
        self.running -= 1
        return BatchResult(acks=[m.id for m in batch])

    async def heed(self):
        """Wake the queue when another node changes it, as the Simulator does."""
        while True:
            assert await self.driver.changed_elsewhere() == "q"
            self.queue.wake()


@contextlib.asynccontextmanager
async def node(url):
    """Open a node with its own connection to the server."""
    clock = Clock()
    async with open_queues(url, clock) as driver, anyio.create_task_group() as tasks:
        this = Node(driver, clock)
        tasks.start_soon(this.heed)
        yield this
        tasks.cancel_scope.cancel()


async def until(condition, seconds=20):
    """Wait until the sync or async condition holds; other processes cannot set an event."""
    with anyio.fail_after(seconds):
        while True:
            found = condition()
            if await found if inspect.isawaitable(found) else found:
                return
            await anyio.sleep(0.01)


@pytest.fixture
def url(nats):
    """The URL of a stream of the test's own, with an ack_wait of 2 s."""
    return f"nats://{nats.address}/{uuid.uuid4().hex}?ack_wait=2"


# --- several nodes ------------------------------------------------------------------------------


async def test_one_node_gets_a_claim(url):
    """Of concurrent claims to a name exactly one succeeds; another name is independent."""
    won = []
    async with node(url) as one, node(url) as two, anyio.create_task_group() as tasks:

        async def claim(driver, name):
            if await driver.claim(name):
                won.append(name)

        for name in ("cleaner 0 * * * * 1767225600000", "cleaner 0 * * * * 1767229200000"):
            for each in (one, two, one, two):
                tasks.start_soon(claim, each.driver, name)
    assert sorted(won) == [
        "cleaner 0 * * * * 1767225600000",
        "cleaner 0 * * * * 1767229200000",
    ]


@pytest.mark.parametrize("days", [2, 3_650])
async def test_message_of_a_node_whose_clock_was_days_ahead(url, days):
    """A delay beyond the maximum, from a wrong clock, is ignored; an allowed delay is kept."""
    async with node(url) as one:
        now = one.driver._clock.now()
        future = NewMessage("f" * 32, b"future", "text", 1, now + days * 86_400)
        later = NewMessage("a" * 32, b"later", "text", 1, now + 86_000)
        await one.driver.send("q", [later, future])
        depth = await one.driver.depth("q")
        assert depth.next_visible_at <= one.driver._clock.now()
        leased = await one.driver.lease("q", 9, now, now + 60)
        assert [message.body for message in leased] == [b"future"]


async def test_two_nodes_share_the_work(url):
    """Each message goes to exactly one of two consumers, and both get some."""
    async with node(url) as one, node(url) as two, anyio.create_task_group() as tasks:
        for each in (one, two):
            each.gate.set()
            tasks.start_soon(each.consumer(max_batch_size=1, max_batch_timeout=0).run)
        for number in range(100):
            await one.queue.send(b"%d" % number)
        await until(lambda: len(one.batches) + len(two.batches) == 100)
        tasks.cancel_scope.cancel()
        taken = one.batches + two.batches
        assert sorted(int(body) for (body,) in taken) == list(range(100))
        assert min(len(one.batches), len(two.batches)) > 0


async def test_concurrency_is_of_all_nodes_together(url):
    """max_concurrency limits the batches of all nodes together."""
    async with node(url) as one, node(url) as two, anyio.create_task_group() as tasks:
        await one.queue.send_batch([MessageSendRequest(b"1")] * 20)
        options = {"max_batch_size": 2, "max_batch_timeout": 0, "max_concurrency": 2}
        for each in (one, two):
            tasks.start_soon(each.consumer(**options).run)
        await until(lambda: one.running + two.running == 2)
        await anyio.sleep(1.5)  # longer than a consumer leaves a busy queue alone
        assert one.running + two.running == 2
        one.gate.set()
        two.gate.set()
        await until(lambda: _empty(one.queue))
        assert sum(len(batch) for batch in one.batches + two.batches) == 20
        tasks.cancel_scope.cancel()


async def _empty(queue):
    return (await queue.depth()).messages == 0


async def test_node_killed_in_mid_batch_has_its_messages_redelivered_elsewhere(url):
    """The messages of a node killed with SIGKILL are redelivered to another after ack_wait."""
    async with node(url) as survivor:
        await survivor.queue.send_batch([MessageSendRequest(b"%d" % n) for n in range(5)])
        command = [sys.executable, "-c", HANGING_NODE, url]
        async with await anyio.open_process(command, cwd=ROOT, stderr=None) as victim:
            assert victim.stdout is not None
            assert await BufferedByteReceiveStream(victim.stdout).receive_exactly(2) == b"5\n"
            survivor.gate.set()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(survivor.consumer(max_batch_timeout=0).run)
                await anyio.sleep(2.5)  # a running victim renews its leases beyond ack_wait
                assert survivor.batches == []
                victim.kill()
                await until(lambda: _empty(survivor.queue))
                tasks.cancel_scope.cancel()
        assert sorted(chain(*survivor.batches)) == ["0", "1", "2", "3", "4"]


async def test_messages_are_settled_through_any_node(url):
    """A message pulled from one node can be acked or retried through another."""
    async with node(url) as one, node(url) as two:
        first, second = (PullConsumer(each.queue, PullConfig(max_retries=1)) for each in (one, two))
        await one.queue.send_batch([MessageSendRequest(b"1"), MessageSendRequest(b"2")])
        acked, retried = await first.pull()
        assert (await second.settle([acked.lease_id], [])).acks == 1
        again = await second.settle([], [Retry(retried.lease_id, 0)])
        assert again.retries == 1
        (message,) = await second.pull()
        assert (message.id, message.attempts) == (retried.id, 2)


async def test_replies_to_deletions_are_lost(url, monkeypatch):
    """Each deletion is requested again, also of the first and the last message; none fails."""
    request, lost = nats_connection.NatsConnection.request, set()

    async def deaf(self, subject, body, headers=None):
        reply = await request(self, subject, body, headers)
        if "STREAM.MSG.DELETE" in subject and body not in lost:
            lost.add(body)
            raise nats_connection.UnansweredError("the reply is lost")
        return reply

    async with node(url) as one:
        other = Queue("other", one.driver, Clock())
        await one.queue.send_batch([MessageSendRequest(b"%d" % each) for each in range(3)])
        monkeypatch.setattr(nats_connection.NatsConnection, "request", deaf)
        assert await one.queue.redrive(other) == 3
        assert len(lost) == 3
        assert (await one.queue.metrics()).backlog_count == 0
        assert (await other.metrics()).backlog_count == 3


async def test_delayed_messages_are_seen_by_all_nodes(url):
    """A delayed message sent by one node reaches another node's consumer at its time."""
    async with node(url) as one, node(url) as two, anyio.create_task_group() as tasks:
        two.gate.set()
        tasks.start_soon(two.consumer(max_batch_timeout=0).run)
        await one.queue.send(b'"late"', delay_seconds=1)
        await until(lambda: two.batches, 5)
        assert two.batches == [['"late"']]
        tasks.cancel_scope.cancel()


# --- server failures ----------------------------------------------------------------------------


async def test_killed_server_loses_no_acknowledged_send(tmp_path):
    """Sends wait while the server is down; no acknowledged one is lost by SIGKILL."""
    with nats_server(tmp_path) as server:
        url = f"nats://{server.address}/q"
        async with node(url) as this, anyio.create_task_group() as tasks:
            acknowledged = []

            async def send():
                for number in range(10_000):
                    await this.queue.send(b"%d" % number)
                    acknowledged.append(number)

            tasks.start_soon(send)
            for _ in range(2):
                reached = len(acknowledged) + 50
                await until(lambda reached=reached: len(acknowledged) >= reached)
                server.kill()
                server.start()
                server.wait()
            reached = len(acknowledged) + 50
            await until(lambda: len(acknowledged) >= reached)
            tasks.cancel_scope.cancel()
        async with node(url) as this:
            held = [int(m.body) for m in await this.queue.peek(20_000)]
            assert len(held) == len(set(held))
            assert set(held) >= set(acknowledged)


async def test_consumer_goes_on_after_the_server_was_away(tmp_path):
    """A consumer resumes after its server was killed and restarted."""
    with nats_server(tmp_path) as server, capture_logs():
        async with node(f"nats://{server.address}/q?ack_wait=1") as this:
            this.gate.set()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(this.consumer(max_batch_timeout=0).run)
                await this.queue.send(b"1")
                await until(lambda: len(this.batches) == 1)
                server.kill()
                server.start()
                server.wait()
                await this.queue.send(b"2")
                await until(lambda: ["2"] in this.batches)
                tasks.cancel_scope.cancel()


async def test_cluster_of_three_survives_the_loss_of_one(tmp_path):
    """With replicas=3, a killed server loses no acknowledged send and duplicates none."""
    with nats_cluster(tmp_path) as servers:
        addresses = ",".join(server.address for server in servers)
        async with node(f"nats://{addresses}/q?replicas=3") as this:
            acknowledged = []

            async def send(start):
                for number in range(start, 10_000, 4):
                    await this.queue.send(b"%d" % number)
                    acknowledged.append(number)

            async with anyio.create_task_group() as tasks:
                for start in range(4):
                    tasks.start_soon(send, start)
                await until(lambda: len(acknowledged) >= 100)
                leader = (await this.driver._server.api("STREAM.INFO.q_q")).cluster.leader
                next(each for each in servers if each.name == leader).kill()
                reached = len(acknowledged) + 200
                await until(lambda: len(acknowledged) >= reached)
                tasks.cancel_scope.cancel()

            async def all_are_there():
                held = [int(m.body) for m in await this.queue.peek(20_000)]
                assert len(held) == len(set(held))
                return set(held) >= set(acknowledged)

            await until(all_are_there)  # a peek may read from a replica that lags behind


async def test_full_server_refuses_and_takes_again(tmp_path):
    """At the server's limit a send fails with the cure and stores nothing; with room it works."""
    server = NatsServer(tmp_path)
    text = server._config.read_text()
    server._config.write_text(text.replace("jetstream {", "jetstream { max_file_store: 1MB,"))
    try:
        server.start()
        server.wait()
        async with node(f"nats://{server.address}/q") as this:
            sent = []

            async def fill():
                for number in range(100):
                    await this.queue.send(b"%d" % number + bytes(100_000), "bytes")
                    sent.append(number)

            with pytest.raises(RunError, match="no room left: give it more") as refused:
                await fill()
            assert "\n" not in str(refused.value)
            assert 5 < len(sent) < 12
            held = await this.queue.lease(100, 60)
            assert [int(m.body.rstrip(b"\0")) for m in held] == sent
            await this.driver.ack("q", [m.lease_id for m in held])
            await this.queue.send(b"1")
    finally:
        server.kill()


async def test_rights_taken_away_may_come_back(tmp_path):
    """A revoked user is logged with the reason; once it is restored, sends work again."""
    server = NatsServer(tmp_path, extra='authorization { user: u, password: "one" }\n')
    try:
        server.start()
        server.wait()
        url, known = f"nats://{server.address}/q", {"user": "u", "password": "one"}
        with capture_logs() as logs:
            async with open_queues(url, Clock(), **known) as driver:
                queue = Queue("q", driver, Clock())
                await queue.send(b"1")
                server.reconfigure("one", "two")
                await until(lambda: any("Authorization" in str(each) for each in logs))
                with anyio.move_on_after(4):  # retried every second
                    await queue.send(b"2")
                server.reconfigure("two", "one")
                await queue.send(b"3")
                assert {m.body for m in await queue.peek(9)} >= {b"1", b"3"}
        said = [each["event"] for each in logs if each["log_level"] == "warning"]
        assert said.count("nats server lost, reconnecting") == 1
        told = [each["error"] for each in logs if each["event"] == "nats server not reached"]
        assert len(told) == len(set(told))
    finally:
        server.kill()


async def test_rights_that_are_too_few_are_told_at_once(tmp_path):
    """A call without the right to publish fails with that reason, without a server's reply."""
    rights = "authorization { users: [ { user: u, password: p, permissions: { publish: { deny: ["
    server = NatsServer(tmp_path, extra=f'{rights} "q.>" ] }} }} }} ] }}\n')
    try:
        server.start()
        server.wait()
        url = f"nats://{server.address}/q"
        async with open_queues(url, Clock(), user="u", password="p") as driver:
            with anyio.fail_after(nats_connection.ANSWER_SECONDS + 2):
                with pytest.raises(RunError, match=r"this user may not publish to q\.q\.ready"):
                    await Queue("q", driver, Clock()).send(b"1")
    finally:
        server.kill()


async def test_tls_is_not_given_up_silently(tmp_path):
    """With tls=true a connection to a server without TLS is refused."""
    server = NatsServer(tmp_path, extra='authorization { user: u, password: "s3cret" }\n')
    try:
        server.start()
        server.wait()
        known = {"user": "u", "password": "s3cret"}
        with pytest.raises(RunError, match="does not ask for TLS; take tls=true out of the URL"):
            async with open_queues(f"nats://{server.address}/q?tls=true", Clock(), **known):
                pass
    finally:
        server.kill()


async def test_tls(tmp_path, monkeypatch):
    """With tls=true and a trusted certificate, messages are sent over TLS."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    await anyio.run_process(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-keyout", key, "-out", certificate, "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    tls = f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}\n'
    with nats_server(tmp_path / "server", tls) as server:
        async with node(f"nats://{server.address}/q?tls=true") as this:
            await this.queue.send(b"1")
            assert [m.body for m in await this.queue.peek(1)] == [b"1"]


# --- configuration errors -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("nats:", "needs a server"),
        ("nats://u:secret@h:4222", "EDGESIM_NATS_USER"),
        ("nats://h/a.b", "letters, digits"),
        ("nats://h?replica=3", "cannot read replica=3"),
        ("nats://h?ack_wait=soon", "cannot read ack_wait=soon"),
    ],
)
def test_urls_that_cannot_be_are_one_line(url, problem):
    """A wrong URL is an error of one line that names the problem and shows no password."""
    with pytest.raises(ConfigError, match=problem) as refused:
        place_of(url)
    assert "secret" not in str(refused.value)


async def test_absent_server_is_one_line(monkeypatch):
    """Opening fails soon if no server answers; the error has the address and the cure."""
    monkeypatch.setattr(nats_connection, "CONNECT_SECONDS", 1.0)
    with pytest.raises(
        RunError, match=r"^nats://127\.0\.0\.1:1: .*is nats-server running there\?$"
    ):
        async with open_queues("nats://127.0.0.1:1", Clock()):
            pass


def test_absent_server_ends_the_command(tmp_path):
    """`edgesim dev` with an unreachable server exits with status 2 and one line."""
    arguments = (
        "dev",
        WORKERS,
        "--port",
        "0",
        "--state",
        tmp_path,
        "--queues",
        "nats://127.0.0.1:1",
    )
    ended = edgesim(*arguments)
    assert ended.returncode == 2
    assert len(ended.stderr.strip().splitlines()) == 1
    assert "nats://127.0.0.1:1" in ended.stderr


async def test_server_without_jetstream_is_told(tmp_path):
    """The error for a server without JetStream names the cause."""
    server = NatsServer(tmp_path, jetstream=False)
    try:
        server.start()
        server.wait()
        with pytest.raises(RunError, match="JetStream is not enabled"):
            async with open_queues(f"nats://{server.address}", Clock()):
                pass
    finally:
        server.kill()


async def test_credentials_come_from_the_environment_alone(tmp_path):
    """The right user and password connect; none or wrong ones are an error of one line."""
    rights = 'authorization { user: "me", password: "s3cret" }\n'
    server = NatsServer(tmp_path, extra=rights)
    try:
        server.start()
        server.wait()
        url = f"nats://{server.address}"
        async with open_queues(url, Clock(), user="me", password="s3cret") as driver:
            assert await driver.names() == []
        for wrong in ({}, {"user": "me", "password": "wr0ng"}):
            cure = r"(?i)authorization.* set EDGESIM_NATS_USER"
            with pytest.raises(RunError, match=cure) as refused:
                async with open_queues(url, Clock(), **wrong):
                    pass
            assert "wr0ng" not in str(refused.value)
    finally:
        server.kill()


async def test_queue_name_that_the_server_cannot_have_is_refused(url):
    """A queue name with wildcards is refused and no queue is created."""
    async with node(url) as this:
        with pytest.raises(RunError, match=r"cannot be the name of a queue"):
            await this.driver.depth("a.*")


async def test_closing_gives_leases_back_at_once(url):
    """A node that closes releases its leases, so other nodes get the messages at once."""
    async with node(url) as one:
        await one.queue.send(b"1")
        assert len(await one.queue.lease(1, 3600)) == 1
    async with node(url) as two:
        assert [m.attempts for m in await two.queue.lease(1, 60)] == [2]


def test_missing_client_library_names_the_extra(monkeypatch):
    """The error for a missing nats-py says which extra to install."""
    monkeypatch.setitem(sys.modules, "nats", None)
    for name in [
        each
        for each in sys.modules
        if each.startswith(("edgesim.queues.nats.", "edgesim.jetstream."))
    ]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UsageError, match=r"pip install 'edgesim\[nats\]'$"):
        opener("queues", "nats://h")
