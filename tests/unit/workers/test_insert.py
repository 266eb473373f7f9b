"""The insert Worker's handler with each supported ClickHouse."""

import gzip
import json
import random
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from edgesim.model import HttpResponse
from tests.servers_clickhouse import clickhouse_server
from tests.worker_world import Scripted, World, notification, refusal, world

pytestmark = pytest.mark.anyio

TS = 1_767_225_600_123
BACKENDS = ["chdb", "18.16"]
TABLES = ("events", "ingest_errors", "insert_failures", "insert_ledger")


def line(number: int, **more: Any) -> dict[str, Any]:
    return {
        "event": "kill",
        "player_id": f"p{number}",
        "ts": TS + number,
        "region": "eu",
        "props": {"n": number, "text": 'a "b", \\ c\t', "region": "zz"},
    } | more


def ndjson(*rows: Any) -> bytes:
    return b"".join(
        (row if isinstance(row, bytes) else json.dumps(row, separators=(",", ":")).encode()) + b"\n"
        for row in rows
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with clickhouse_server(tmp_path_factory.mktemp("clickhouse")) as (http, _):
        yield http


@asynccontextmanager
async def ledgered(http: int, tmp_path: Path) -> AsyncIterator[World]:
    """A project on the server without deduplication tokens; its tables are dropped at the end."""
    url = f"clickhouse+http://127.0.0.1:{http}"
    way = {"DEDUPLICATION": "ledger"}
    async with world(tmp_path, clickhouse=url, schema="schema-ledger.sql", insert=way) as running:
        try:
            yield running
        finally:
            # Stage tables as well, which concurrent deliveries may leave.
            names = "SELECT name FROM system.tables WHERE database = currentDatabase()"
            for [table] in await running.sql(names):
                await running.sql(f"DROP TABLE {table}")


@pytest.fixture(params=BACKENDS)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    if request.param == "chdb":
        opened = world(tmp_path, clickhouse=f"chdb:{tmp_path}/clickhouse")
    else:
        opened = ledgered(request.getfixturevalue("server"), tmp_path)
    async with opened as running:
        yield running


async def test_an_object_is_inserted_once_however_often_it_comes(database):
    """Repeated and concurrent deliveries of an object insert each row once."""
    await database.put("events", "a.json.gz", ndjson(*map(line, range(100))))
    told = notification("a.json.gz")
    result = await database.deliver("insert", "ingest", told, told)
    assert result.acks == ["m0", "m1"]
    assert await database.sql("SELECT count(), uniqExact(player_id) FROM events") == [[100, 100]]
    [[event, player, region, props]] = await database.sql(
        "SELECT event, player_id, region, props FROM events WHERE player_id = 'p7'"
    )
    assert (event, player, region) == ("kill", "p7", "eu")
    assert json.loads(props) == line(7)["props"]


async def test_deliveries_beside_each_other(database):
    """Of concurrent deliveries of an object some may be retried; each row is inserted once."""
    await database.put("events", "b.json.gz", ndjson(*map(line, range(200))))
    results: list[Any] = []

    async def deliver() -> None:
        results.append(await database.deliver("insert", "ingest", notification("b.json.gz")))

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(deliver)
    assert any(result.acks for result in results)
    result = await database.deliver("insert", "ingest", notification("b.json.gz"))
    assert result.acks == ["m0"]
    assert await database.sql("SELECT count() FROM events") == [[200]]


async def test_months_apart_in_one_object(server, tmp_path):
    """An object with rows of more than 100 months, by a wrong clock, is inserted."""
    async with ledgered(server, tmp_path) as running:
        rows = [line(number, ts=number * 31 * 86_400_000 + 1) for number in range(105)]
        await running.put("events", "m.json.gz", ndjson(*rows))
        for _ in range(2):
            assert (await running.deliver("insert", "ingest", notification("m.json.gz"))).acks
        assert await running.sql("SELECT count() FROM events") == [[105]]


@pytest.mark.parametrize("left", ["all months", "one month", "none"])
async def test_a_crash_before_the_ledger_is_written(server, tmp_path, left):
    """After a crash before the ledger entry, a retry inserts exactly the missing rows."""
    async with ledgered(server, tmp_path) as running:
        rows = [line(number, ts=TS + number % 2 * 31 * 86_400_000) for number in range(10)]
        await running.put("events", "c.json.gz", ndjson(*rows))
        assert (await running.deliver("insert", "ingest", notification("c.json.gz"))).acks
        # Simulate the crash: all or some of the rows, and no entry in the ledger.
        await running.sql("DROP TABLE insert_ledger")
        await running.sql("CREATE TABLE insert_ledger (object String) ENGINE = TinyLog")
        for month in {"all months": (), "one month": (202601,), "none": (202601, 202602)}[left]:
            await running.sql(f"ALTER TABLE events DROP PARTITION {month}")
        assert (await running.deliver("insert", "ingest", notification("c.json.gz"))).acks
        assert await running.sql("SELECT count(), uniqExact(player_id) FROM events") == [[10, 10]]
        assert await running.sql("SELECT count() FROM insert_ledger") == [[1]]
        stages = "SELECT count() FROM system.tables WHERE name LIKE 'insert_stage%'"
        assert await running.sql(stages) == [[0]]


async def test_the_views(tmp_path):
    """The views show events by minute, type and player, the lag, and failures."""
    async with world(tmp_path, clickhouse=f"chdb:{tmp_path}/clickhouse") as running:
        rows = [line(number % 3, ts=TS + number % 3 * 60_000) for number in range(9)]
        await running.put("events", "a.json.gz", ndjson(*rows))
        told = [notification("a.json.gz"), notification("gone.json.gz")]
        assert len((await running.deliver("insert", "ingest", *told)).acks) == 2
        minutes = "SELECT events, players FROM events_per_minute ORDER BY minute"
        assert await running.sql(minutes) == [[3, 1]] * 3
        types = "SELECT event, events, players FROM events_per_type"
        assert await running.sql(types) == [["kill", 9, 3]]
        players = "SELECT player_id, events FROM events_per_player ORDER BY player_id"
        assert await running.sql(players) == [["p0", 3], ["p1", 3], ["p2", 3]]
        # A quantile of equal values may exceed them by a rounding error of a Float64.
        near = "most * (1 + 1e-12)"
        lag = f"SELECT events, p50 > 0, p50 <= {near}, p95 <= {near} FROM ingest_lag"
        assert await running.sql(lag) == [[9, 1, 1, 1]]
        failures = "SELECT error, failures, objects FROM failures_per_error"
        assert await running.sql(failures) == [["the object is gone", 1, 1]]


async def test_a_new_version_of_an_object_is_another_object(database):
    """The same key with other content is inserted as well."""
    for number in range(2):
        await database.put("events", "v.json.gz", ndjson(line(number)))
        assert (await database.deliver("insert", "ingest", notification("v.json.gz"))).acks
    assert await database.sql("SELECT count() FROM events") == [[2]]


async def test_bad_rows_are_set_apart(database):
    """Bad rows go to ingest_errors with their object, once for any number of deliveries."""
    bad = [b"{broken", b"[1, 2]", ndjson(line(3, ts="soon")).strip(), b"plain text", b'"x"']
    await database.put("events", "p.json.gz", ndjson(*map(line, range(5)), *bad, line(5)))
    for attempts in (1, 2, 3):
        told = notification("p.json.gz")
        assert (await database.deliver("insert", "ingest", told, attempts=attempts)).acks == ["m0"]
    assert await database.sql("SELECT count(), uniqExact(player_id) FROM events") == [[6, 6]]
    rows = await database.sql("SELECT raw, worker, reason FROM ingest_errors ORDER BY raw")
    assert [row[0].encode() for row in rows] == sorted(bad)
    assert {tuple(row[1:]) for row in rows} == {("insert", "refused_row")}
    [[detail]] = await database.sql("SELECT DISTINCT substring(detail, 1, 17) FROM ingest_errors")
    assert detail == "events/p.json.gz@"
    [[props]] = await database.sql("SELECT props FROM events WHERE player_id = 'p1'")
    assert json.loads(props) == line(1)["props"]


HOSTILE = {
    "a byte that is not UTF-8": (b"\xff\xfe", "not UTF-8"),
    "such a byte in a wrong value": (b'{"ts": "\xff"}', "not UTF-8"),
    "an overlong encoding": (b'{"event": "\xc0\xaf", "ts": "x"}', "not UTF-8"),
    "half a surrogate pair": (rb'{"event": "\ud800", "ts": 1}', "not JSON"),
    "half an escape": (rb'{"event": "\u12", "ts": 1}', "not JSON"),
    "an escape that is none": (rb'{"event": "\q", "ts": "x"}', "not JSON"),
    "a NUL": (b"\0", "not JSON"),
    "too deep": (b'{"x": ' * 3000 + b"1" + b"}" * 3000, "not JSON"),
    "brackets that stay open": (b'{"props": ' + b"[" * 100_000, "not JSON"),
    "a line that breaks off": (b'{"event": "kill", "ts": 17', "not JSON"),
    "a backslash at the end": (b'{"event": "\\', "not JSON"),
    "a very long line": (b'{"event": "' + b"x" * 3_000_000, "not JSON"),
    "two numbers": (b"1 2", "not JSON"),
    "a number": (b"5", "not an object"),
    "an array": (b'[{"ts": 1}]', "not an object"),
    "a time that is text": (b'{"ts": "soon"}', "no milliseconds in ts"),
    "a time that is an object": (b'{"ts": {}}', "no milliseconds in ts"),
    "a time beyond all numbers": (b'{"ts": 1e400}', "not JSON"),
}


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path, clickhouse=f"chdb:{tmp_path}/clickhouse") as running:
        yield running


async def test_lines_that_cannot_be_parsed_are_named(embedded):
    """An unparsable line is recorded with place and cause; the other rows are inserted."""
    for number, (bad, why) in enumerate(HOSTILE.values()):
        key = f"{number}.json.gz"
        await embedded.put("events", key, ndjson(line(number), bad, line(1000 + number)))
        for _ in range(2):
            result = await embedded.deliver("insert", "ingest", notification(key))
            assert result.acks == ["m0"], bad[:50]
        named = f"FROM ingest_errors WHERE startsWith(detail, 'events/{key}@')"
        rows = await embedded.sql(f"SELECT detail, length(raw) > 0 {named}")
        assert len(rows) == 1, bad[:50]
        [[detail, kept]] = rows
        assert detail.endswith(f": line 2: {why}"), (detail, bad[:50])
        assert kept
    count = 2 * len(HOSTILE)
    assert await embedded.sql("SELECT count(), uniqExact(player_id) FROM events") == [
        [count, count]
    ]


@pytest.mark.parametrize("seed", range(3))
async def test_random_lines_cost_their_neighbours_nothing(database, seed):
    """Good rows between mutilated ones are inserted once, and the message is acked."""
    chance = random.Random(seed)
    for number in range(4):
        lines = []
        for at in range(40):
            lines.append(ndjson(line(number * 1000 + at))[:-1])
            lines += [_mutilated(chance) for _ in range(chance.randrange(3))]
        key = f"r{number}.json.gz"
        await database.put("events", key, b"\n".join(lines) + b"\n" * chance.randrange(2))
        for _ in range(2):
            result = await database.deliver("insert", "ingest", notification(key))
            assert result.acks == ["m0"], (seed, number)
    good = "SELECT count(), uniqExact(player_id) FROM events WHERE startsWith(player_id, 'p')"
    assert await database.sql(good) == [[160, 160]]


def _mutilated(chance: random.Random) -> bytes:
    """A mutilated line of a hostile client; its player is never a good row's."""
    if chance.random() < 0.3:
        return chance.choice([bad for bad, _ in HOSTILE.values()])
    text = bytearray(ndjson(line(0, player_id="h"))[:-1])
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(text))
        change = chance.randrange(3)
        if change == 0:
            text[at] = chance.choice([*range(10), *range(11, 256)])
        elif change == 1:
            del text[at]
        else:
            text[at:at] = chance.choice(
                [b'"', b"\\", b"{", b"}", b"\xff", b"\r", b"\\ud83d", b"9" * 400]
            )
    return bytes(text).replace(b'"p', b'"h')


@pytest.mark.parametrize("text", [b"\xef\xbb\xbf%s\n%s", b"%s\r\n\r\n%s\r\n", b"\n \n%s\n%s"])
async def test_what_other_programs_write_is_no_error(embedded, text):
    """A byte order mark, CRLF and blank lines are accepted, also beside a bad line."""
    content = text % (ndjson(line(1))[:-1], ndjson(line(2))[:-1]) + b"\n{broken\n"
    await embedded.put("events", "w.json.gz", content)
    assert (await embedded.deliver("insert", "ingest", notification("w.json.gz"))).acks == ["m0"]
    assert await embedded.sql("SELECT count() FROM events") == [[2]]
    assert await embedded.sql("SELECT raw FROM ingest_errors") == [["{broken"]]


@pytest.mark.parametrize("kept", [0.5, 0.999, 5])
async def test_gzip_that_is_cut_short(database, kept):
    """Rows before the end of a truncated gzip are inserted once; the partial line is recorded."""
    whole = gzip.compress(ndjson(*map(line, range(2000))), mtime=0)
    cut = whole[: int(kept * len(whole)) if kept < 1 else kept]
    unpacked = zlib.decompressobj(31).decompress(cut)
    await database.put_raw("events", "cut.json.gz", cut)
    for _ in range(2):
        told = notification("cut.json.gz")
        assert (await database.deliver("insert", "ingest", told)).acks == ["m0"]
    lines = unpacked.count(b"\n")
    assert await database.sql("SELECT count(), uniqExact(player_id) FROM events") == [
        [lines, lines]
    ]
    [[raw]] = await database.sql("SELECT raw FROM ingest_errors")
    assert raw.encode().startswith(unpacked[unpacked.rfind(b"\n") + 1 :])
    assert raw


async def test_gzip_with_a_damaged_byte(embedded):
    """Rows before a damaged byte of a gzip are inserted, and the message is acked."""
    whole = bytearray(gzip.compress(ndjson(*map(line, range(2000))), mtime=0))
    whole[len(whole) // 2 :] = b"\xff" * (len(whole) - len(whole) // 2)
    await embedded.put_raw("events", "d.json.gz", bytes(whole))
    assert (await embedded.deliver("insert", "ingest", notification("d.json.gz"))).acks == ["m0"]
    [[count, players]] = await embedded.sql("SELECT count(), uniqExact(player_id) FROM events")
    assert count == players > 500
    assert await embedded.sql("SELECT count() > 0 FROM ingest_errors") == [[1]]


async def test_the_mirrored_chain(database):
    """Objects of the errors bucket become rows of ingest_errors."""
    row = {
        "received_at": TS,
        "worker": "receiver",
        "reason": "invalid_json",
        "detail": "d",
        "raw": '{"a": ",\\"props\\":"} \u00e9',
        "ip": "192.0.2.1",
        "user_agent": "game/1",
        "country": "NL",
    }
    await database.put("errors", "e.json.gz", ndjson(row))
    for _ in range(2):
        told = notification("e.json.gz", "errors")
        assert (await database.deliver("insert", "ingest-errors", told)).acks
    rows = await database.sql("SELECT worker, reason, raw, ip, country FROM ingest_errors")
    assert rows == [["receiver", "invalid_json", row["raw"], "192.0.2.1", "NL"]]


@pytest.mark.parametrize("kind", ["gone", "empty"])
async def test_an_object_that_holds_nothing(database, kind):
    """A missing or empty object is a row of insert_failures; the message is acked."""
    if kind == "empty":
        await database.put("events", "x.json.gz", b"")
    result = await database.deliver("insert", "ingest", notification("x.json.gz"))
    assert result.acks == ["m0"]
    query = "SELECT queue, bucket, object, error FROM insert_failures"
    expected = ["ingest", "events", "x.json.gz", f"the object is {kind}"]
    assert await database.sql(query) == [expected]


async def test_a_dead_letter_is_recorded_once(database):
    """A dead letter is recorded once with its error, for any number of deliveries."""
    letter = notification("q'\\.gz") | {
        "failure": {"queue": "ingest", "attempts": 9, "error": "it's \\ down"}
    }
    for attempts in (1, 2, 3):
        result = await database.deliver("dead-letter", "ingest-dlq", letter, attempts=attempts)
        assert [retry.delay_seconds for retry in result.retries] == [86_400]
    rows = await database.sql(
        "SELECT queue, message_id, object, attempts, error FROM insert_failures"
    )
    assert rows == [["ingest", "m0", "q'\\.gz", 9, "it's \\ down"]]


# --- behaviour with a failing database ---


@pytest.mark.parametrize(
    "answer", [HttpResponse(503, body=b"down"), refusal(241, "Memory limit exceeded"), refusal(60)]
)
async def test_a_failed_insert_is_tried_again_later(tmp_path, answer):
    """A failed insert is retried with exponential backoff and full jitter, as the vars set it."""
    down = Scripted(answer)
    variables = {"BACKOFF_BASE_SECONDS": "2", "BACKOFF_CAP_SECONDS": "16"}
    async with world(tmp_path, scripted=down, insert=variables) as running:
        await running.put("events", "a.json.gz", ndjson(line(1)))
        for attempts, most in ((1, 2), (3, 8), (8, 16)):
            told = notification("a.json.gz")
            result = await running.deliver("insert", "ingest", told, attempts=attempts)
            assert result.acks == []
            assert 1 <= result.retries[0].delay_seconds <= most


async def test_one_message_finds_out_for_its_batch(tmp_path):
    """If the database is down, one statement is tried for the batch, not one for each message."""
    down = Scripted(HttpResponse(503, body=b"down"))
    async with world(tmp_path, scripted=down) as running:
        for name in "abc":
            await running.put("events", f"{name}.json.gz", ndjson(line(1)))
        down.asked.clear()
        told = [notification(f"{name}.json.gz") for name in "abc"]
        result = await running.deliver("insert", "ingest", *told)
        assert len(result.retries) == 3
        assert len(down.asked) == 1


async def test_the_last_attempt_goes_to_the_dead_letters_with_its_error(tmp_path):
    """After its last attempt a message is acked and sent to the dead letters with the error."""
    down = Scripted(HttpResponse(503, body=b"out of reach"))
    async with world(tmp_path, scripted=down, insert={"ATTEMPTS_MAX": "4"}) as running:
        await running.put("events", "a.json.gz", ndjson(line(1)))
        told = notification("a.json.gz")
        result = await running.deliver("insert", "ingest", told, attempts=4)
        assert result.acks == ["m0"]
        [letter] = await running.dead_letters()
        failure = letter.pop("failure")
        assert letter == told
        assert (failure["queue"], failure["attempts"]) == ("ingest", 4)
        assert "out of reach" in failure["error"]


async def test_a_dead_letter_that_cannot_be_sent_is_tried_again(tmp_path):
    """A message that is too large for a dead letter with its error is retried."""
    body = {"bucket": "nowhere", "object": {"key": "k"}, "padding": "x" * 127_900}
    async with world(tmp_path, scripted=Scripted()) as running:
        result = await running.deliver("insert", "ingest", body)
        assert [retry.id for retry in result.retries] == ["m0"]
        assert not result.acks
        assert not await running.dead_letters()


@pytest.mark.parametrize(
    "body", ["text", None, 5, [1], {"bucket": "nowhere", "object": {"key": "k"}}]
)
async def test_what_is_no_notification_is_not_tried_again(tmp_path, body):
    """A message that is no notification becomes a dead letter at once; the others are inserted."""
    async with world(tmp_path, scripted=Scripted()) as running:
        await running.put("events", "a.json.gz", ndjson(line(1)))
        result = await running.deliver("insert", "ingest", body, notification("a.json.gz"))
        assert result.acks == ["m0", "m1"]
        assert len(await running.dead_letters()) == 1


async def test_an_answer_that_never_comes(tmp_path):
    """A statement without a reply times out and is retried."""

    class Silent(Scripted):
        async def fetch(self, request: Any, caller: str = "") -> HttpResponse:
            await anyio.sleep_forever()
            raise AssertionError

    variables = {"INSERT_TIMEOUT_SECONDS": "0.1"}
    async with world(tmp_path, scripted=Silent(), insert=variables) as running:
        await running.put("events", "a.json.gz", ndjson(line(1)))
        with anyio.fail_after(60):
            result = await running.deliver("insert", "ingest", notification("a.json.gz"))
        assert len(result.retries) == 1


async def test_the_bytes_go_through_as_they_are(tmp_path):
    """The object's bytes are sent compressed, in one statement, with its deduplication token."""
    scripted = Scripted()
    async with world(tmp_path, scripted=scripted) as running:
        await running.put("events", "a b&c.json.gz", ndjson(*map(line, range(3))))
        scripted.asked.clear()
        await running.deliver("insert", "ingest", notification("a b&c.json.gz"))
        [(query, settings, data)] = scripted.asked
        found = await running.simulator.primitives.bucket("events").head("a b&c.json.gz")
        assert found is not None
        assert query.startswith("INSERT INTO events (ts, event,")
        assert settings["insert_deduplication_token"] == f"events/a b&c.json.gz@{found.etag}"
        assert data == await running.content("events", "a b&c.json.gz")


async def test_a_server_without_tokens_is_loud(server, tmp_path):
    """A server that does not support the requested tokens is an error; no row is inserted twice."""
    url = f"clickhouse+http://127.0.0.1:{server}"
    async with world(tmp_path, clickhouse=url, schema="schema-ledger.sql") as running:
        await running.put("events", "a.json.gz", ndjson(line(1)))
        result = await running.deliver("insert", "ingest", notification("a.json.gz"), attempts=9)
        assert result.acks == ["m0"]
        [letter] = await running.dead_letters()
        assert "Unknown setting" in letter["failure"]["error"]
        for table in TABLES:
            await running.sql(f"DROP TABLE {table}")
