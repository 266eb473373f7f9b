"""`edgesim replay` in virtual time: windows, faults, kills, expectations, determinism."""

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.processes import ROOT, WORKERS, edgesim
from tests.simulated import write_worker

FAULTS = """
r2 error 5%
r2 latency 10ms..500ms 30%
r2.put lost-answer 10%
queues duplicate 10%
queues reorder 20%
queues.lease lost-answer 5%
clickhouse outage from 90s to 200s
clickhouse lost-answer 20%
pipelines lost-answer 5%
workers crash 3%
workers latency 1ms..100ms
platform kill at 2s
platform kill at 95s
platform kill at 150s
"""


ON_DISK = """
disk failed-fsync 2% to 90s
disk full from 40s to 41s
platform kill at 95s
platform power-cut after 30 steps
platform kill after 4 recovery-steps from 100s
clock jump 1h at 100s
"""


def envelope(at: float, number: int, **more: object) -> str:
    event = {"event": "kill", "player_id": f"p{number}", "ts": 1767225600000, "match_id": "m"}
    return json.dumps({"at": at, "request": {"json": event}, **more})


@pytest.fixture
def fixture(tmp_path: Path) -> Path:
    """Two requests in each of three windows, and an invalid one."""
    path = tmp_path / "traffic.ndjson"
    lines = [envelope(at, number) for number, at in enumerate((0, 1.5, 100, 101, 230, 231))]
    path.write_text("\n".join([*lines, '{"at": 240, "request": {"body": "broken"}}']) + "\n")
    return path


def replay(
    fixture: Path, *arguments: object, env: dict[str, str] | None = None, python=sys.executable
):
    command = [python, "-m", "edgesim.cli", "replay", fixture, "--project", WORKERS, *arguments]
    return subprocess.run(
        [*map(str, command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={**os.environ, **(env or {})},
    )


def test_windows_pass_at_once(fixture):
    """Three windows are three objects, and an event arrives when its window ends."""
    done = replay(fixture, "--isolation", "inline", "--report", "json", "--check")
    report = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert report["stats"]["pipelines"]["events"]["objects"] == 3
    assert report["seconds"] > 320
    stages = {stage["name"]: stage for stage in report["stages"]}
    assert stages["pipeline events"]["latency"]["max"] == 90_000
    assert stages["end to end events"]["left"] == 6
    assert report["violations"] == []


SLOW = """
import asyncio
from workers import Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        await asyncio.sleep(1)
        return Response("OK")
"""


def one_worker(folder: Path, source: str, account: str = "", **settings: object) -> Path:
    """Write a project of one Worker ``w``."""
    (folder / "w").mkdir()
    (folder / "w" / "w.py").write_text(source)
    wrangler: dict[str, object] = {"name": "w", "main": "w.py", "compatibility_date": "2026-01-01"}
    wrangler["compatibility_flags"] = ["python_workers"]
    (folder / "w" / "wrangler.json").write_text(json.dumps(wrangler | settings))
    (folder / "edgesim.toml").write_text(f'workers = ["w"]\nentry = "w"\n{account}')
    return folder


def test_a_bigger_machine_replays_the_same(tmp_path):
    """At warm, the number of processes does not depend on the machine's number of cores."""
    project = one_worker(tmp_path, SLOW)
    crowd, runs = tmp_path / "crowd.ndjson", []
    crowd.write_text("\n".join(envelope(0, number) for number in range(60)) + "\n")
    for cores in (2, 64):
        journal = tmp_path / f"{cores}.journal"
        start = (
            f"import os, runpy; os.cpu_count = lambda: {cores}; "
            "runpy.run_module('edgesim.cli', run_name='__main__')"
        )
        command = [sys.executable, "-c", start, "replay", crowd, "--project", project]
        command += ["--isolation", "warm", "--journal", journal, "--report", "json"]
        done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, check=True)
        runs.append((done.stdout, journal.read_bytes()))
    assert runs[0] == runs[1]


PARTS = """
from workers import Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        key = (await request.json())["player_id"]
        upload = await self.env.B.createMultipartUpload(key)
        parts = [await upload.uploadPart(1, "x" * 10)]
        try:
            await upload.complete(parts)
        except Exception:
            if await self.env.B.head(key) is None:
                raise
        return Response("OK")

    async def queue(self, batch, env=None, ctx=None):
        batch.ackAll()
"""


def test_uploads_in_parts_fail_too_and_are_checked(tmp_path):
    """Parts and replies get lost; a completed upload is an object, and is notified."""
    account = '[[r2.big.notifications]]\nqueue = "q"\nevent = "object-create"\n'
    project = one_worker(
        tmp_path,
        PARTS,
        account,
        r2_buckets=[{"binding": "B", "bucket_name": "big"}],
        queues={"consumers": [{"queue": "q"}]},
    )
    traffic = tmp_path / "traffic.ndjson"
    traffic.write_text("\n".join(envelope(number, number) for number in range(40)) + "\n")
    faults = "r2.put_part error 25%; r2.complete lost-answer 50%; r2.create error 10%"
    done = replay(
        traffic,
        *("--project", project, "--isolation", "inline", "--check", "--report", "json"),
        *("--faults", faults),
    )
    report = json.loads(done.stdout)
    assert report["violations"] == []
    answered = report["responses"]["200"]
    assert 0 < answered < 40
    assert report["stats"]["r2"]["big"]["objects"] == answered
    stages = {stage["name"]: stage for stage in report["stages"]}
    assert (stages["bucket big"]["entered"], stages["queue q"]["left"]) == (answered, answered)
    rules = {fired["fault"].split()[0] for fired in report["faults"]}
    assert rules == {"r2.put_part", "r2.complete", "r2.create"}


def test_a_person_reads_it_in_ten_seconds(fixture):
    """A summary line on top, a row for each stage, OK at the end."""
    lines = replay(fixture, "--isolation", "inline").stdout.splitlines()
    assert lines[0] == "7 requests in 5 min 33 s of virtual time, seed 0: 6 x 200, 1 x 400"
    assert lines[1].split() == [
        "stage",
        "in",
        "out",
        "lost",
        "retried",
        "dead",
        "p50",
        "p99",
        "max",
    ]
    assert any(line.split()[:4] == ["pipeline", "events", "6", "6"] for line in lines)
    assert lines[-1] == "OK"


EXPECTED = """
[responses]
200 = 6
400 = 1
[[requests]]
number = 7
status = 400
json = { error = "invalid_json" }
[sql]
"SELECT count() FROM events" = 6
"SELECT player_id FROM events ORDER BY player_id LIMIT 2" = [["p0"], ["p1"]]
[counts]
"tail.lost" = 0
"invocations.receiver.ok" = 7
[objects.events]
count = 3
rows = 6
[queues.ingest]
backlog = 0
delivered = 3
dead = 0
"""


def test_expectations_of_every_kind(fixture, tmp_path):
    """Responses, requests, SQL, counters, objects, queues; JUnit has a case for each."""
    expected = tmp_path / "expected.toml"
    expected.write_text(EXPECTED)
    done = replay(fixture, "--isolation", "inline", "--expect", expected, "--report", "junit")
    assert done.returncode == 0, done.stdout + done.stderr
    suite = ET.fromstring(done.stdout)
    assert (suite.get("tests"), suite.get("failures")) == ("14", "0")


WRONG = """
[sql]
"SELECT coun() FROM events" = 1
"SELECT 0.1 + 0.2" = 0.3
"SELECT avg(number) FROM numbers(4)" = 1.5
"SELECT toFloat64(2)" = 2
"SELECT 9007199254740993" = 9007199254740992
[counts]
"tail.lst" = 0
"invocations.reciever.ok" = 0
"invocations.receiver.exceptions" = 0
"invocations.receiver.exception" = 0
"pipelines.events.dropped.null_value" = 0
"receiver.requests.all" = 1
[objects.evnts]
count = 0
[queues.ingst]
backlog = 0
[queues.ingest-dlq]
backlog = 0
[queues.ingest]
died = 0
"""


def test_what_nothing_can_meet_is_a_failed_expectation(fixture, tmp_path):
    """Unknown names, failing statements, unequal numbers; the JUnit file has each of them."""
    expected, junit = tmp_path / "expected.toml", tmp_path / "reports" / "junit.xml"
    expected.write_text(WRONG)
    done = replay(
        fixture, "--isolation", "inline", "--expect", expected, "--junit", junit, "--seed", 1
    )
    assert done.returncode == 1, done.stderr
    suite = ET.fromstring(junit.read_text())
    cases = {case.get("name"): case.find("failure") for case in suite}
    failed = {name for name, failure in cases.items() if failure is not None}
    assert failed == {
        "SELECT coun() FROM events",
        "SELECT 9007199254740993",
        "tail.lst",
        "invocations.reciever.ok",
        "invocations.receiver.exceptions",
        "receiver.requests.all",
        "objects in evnts",
        "queue ingst backlog",
        "queue ingest died",
    }
    assert {case.get("classname") for case in suite} == {f"edgesim.{fixture.stem}"}
    assert "tail has items, lost" in done.stdout
    assert "no bucket 'evnts'; the project has errors, events" in done.stdout
    assert "UNKNOWN_FUNCTION" in done.stdout


def test_a_junit_file_that_cannot_be_written(fixture, tmp_path):
    """One line, exit 2, and no report."""
    (tmp_path / "file").write_text("")
    done = replay(fixture, "--isolation", "inline", "--junit", tmp_path / "file" / "junit.xml")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"edgesim: --junit {tmp_path / 'file'}")
    assert line.endswith("name another path, or change its permissions")


def test_a_mismatch_shows_a_diff(fixture, tmp_path):
    """Rows that differ are shown as a diff, exit 1."""
    expected = tmp_path / "expected.toml"
    expected.write_text(
        '[sql]\n"SELECT player_id FROM events ORDER BY 1" = [["p0"], ["p1"], ["p2"], ["p9"]]\n'
        '[counts]\n"pipelines.events.recrods" = 6\n'
    )
    done = replay(fixture, "--isolation", "inline", "--expect", expected)
    assert done.returncode == 1
    assert '- ["p9"]' in done.stdout
    assert '+ ["p3"]' in done.stdout
    assert '  ["p1"]' in done.stdout
    assert "FAILED: pipelines.events.recrods" in done.stdout


def pythons() -> list[str]:
    """Interpreters that can run a replay: those of `make pythons`, or with edgesim installed."""
    found = {sys.version_info[:2]: sys.executable}
    for minor in (11, 12, 13):
        for candidate in (str(ROOT / f".venv-3.{minor}" / "bin" / "python"), f"python3.{minor}"):
            needs = "import sys, edgesim.cli, msgspec, anyio, chdb; print(sys.version_info[:2])"
            try:
                done = subprocess.run(
                    [candidate, "-c", needs], capture_output=True, check=False, cwd=ROOT
                )
            except OSError:
                continue
            if done.returncode == 0:
                found.setdefault((3, minor), candidate)
    return list(found.values())


def first_difference(one: Path, other: Path) -> str:
    """Return the first virtual time at which two journals differ, and both lines."""
    with one.open() as left, other.open() as right:
        for mine, theirs in zip(left, right, strict=False):
            if _plain(mine) != _plain(theirs):
                return f"they part at {mine.split()[0]}:\n  {mine}  {theirs}"
    return "one goes on where the other ends"


def _plain(line: str) -> str:
    """Remove file positions in the standard library, which differ between Python versions."""
    return " ".join(line.split()[:4])


def test_a_disk_that_fails_needs_virtual_time(fixture):
    """Real time cannot simulate it; the error names the rule."""
    done = replay(fixture, "--speed", "realtime", "--faults", "platform power-cut at 1s")
    assert done.returncode == 2
    assert "'platform power-cut at 1s' needs virtual time" in done.stderr


def test_what_was_acknowledged_survives_power_cuts(fixture):
    """Kills and power cuts after durable steps, a disk that fails and is full: nothing is lost."""
    for seed in range(3):
        done = replay(fixture, *("--isolation", "inline", "--faults", ON_DISK, "--seed", seed))
        assert done.returncode == 0, done.stdout
        assert "power-cut after 30 steps" in done.stdout


@pytest.mark.parametrize("level", ["inline", "process", "warm"])
def test_the_same_replay_is_the_same_bytes(fixture, tmp_path, level):
    """Same fixture, seed and faults: same report, whatever the hash seed and the Python version."""
    # A zygote takes time to start: the levels that use them have one kill, not three.
    inline = level == "inline"
    faults = FAULTS + ON_DISK if inline else FAULTS.replace("kill at 2s", "kill at 95s")
    faults = "\n".join(dict.fromkeys(faults.replace("kill at 150s", "kill at 95s").splitlines()))
    outputs, journals = [], []
    versions = pythons() if inline else [sys.executable]
    runs = [(versions[0], "0"), *((python, str(n)) for n, python in enumerate(versions, 1))]
    for number, (python, hash_seed) in enumerate(runs):
        journals.append(tmp_path / f"journal.{number}")
        done = replay(
            *(fixture, "--isolation", level, "--seed", 7, "--report", "json"),
            *("--faults", faults, "--journal", journals[-1]),
            env={"PYTHONHASHSEED": hash_seed},
            python=python,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        outputs.append(done.stdout)
    for number, output in enumerate(outputs):
        assert output == outputs[0], first_difference(journals[0], journals[number])
    assert len(json.loads(outputs[0])["faults"]) > 10


def test_another_seed_is_another_run(fixture):
    """Faults occur elsewhere, and still nothing is lost."""
    first, second = (
        replay(fixture, *("--isolation", "inline", "--faults", FAULTS, "--seed", seed))
        for seed in (1, 2)
    )
    assert first.stdout != second.stdout
    assert (first.returncode, second.returncode) == (0, 0)


def test_an_outage_without_end_is_not_drained(fixture):
    """The report says that work was still in progress, and which check failed; exit 1."""
    done = replay(
        fixture, "--isolation", "inline", "--faults", "r2 outage from 0s", "--report", "text"
    )
    assert done.returncode == 1
    assert "FAILED: work was still in progress" in done.stdout
    assert "FAILED: backlog empty after calm" in done.stdout


def test_the_internet_is_what_the_fixture_says(tmp_path):
    """An `outbound` line is the response to a fetch; without one the fetch fails and says why."""
    project = ROOT / "examples" / "pytest-project"
    ask = {"at": 1, "request": {"method": "GET", "path": "/rate"}}
    answer = {
        "outbound": {"url": "https://rates.example.com/eur"},
        "response": {"status": 200, "body": "0.92"},
    }
    unanswered, answered = tmp_path / "unanswered.ndjson", tmp_path / "answered.ndjson"
    unanswered.write_text(json.dumps(ask) + "\n")
    answered.write_text(json.dumps(answer) + "\n" + json.dumps(ask) + "\n")
    expect = tmp_path / "expected.toml"
    expect.write_text(
        '[[requests]]\nnumber = 1\nstatus = 500\n[[requests]]\nnumber = 2\nbody = "0.92"\n'
    )
    done = edgesim(
        *("replay", unanswered, answered, "--project", project),
        *("--isolation", "inline", "--expect", expect),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no response is defined for GET https://rates.example.com/eur" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--r2", "s3://127.0.0.1:9"], "cannot live in virtual time"),
        (["--clickhouse", "clickhouse+http://127.0.0.1:9"], "--speed realtime"),
        (["--faults", "r2 eror 5%"], "did you mean 'error'"),
        (["--start", "tomorrow"], "'tomorrow' is not an ISO date"),
    ],
)
def test_what_cannot_be_replayed_is_one_line(fixture, arguments, problem):
    """The error comes before anything starts, exit 2."""
    done = replay(fixture, "--isolation", "inline", *arguments)
    assert done.returncode == 2
    assert problem in done.stderr
    assert done.stderr.count("\n") == 1


def test_realtime_waits_for_the_fixtures_times(tmp_path):
    """Half a second between two requests is half a second."""
    fixture = tmp_path / "two.ndjson"
    fixture.write_text(envelope(0, 0) + "\n" + envelope(0.5, 1) + "\n")
    project = tmp_path / "project"
    import shutil

    shutil.copytree(ROOT / "examples" / "pytest-project", project)
    toml = project / "edgesim.toml"
    toml.write_text(toml.read_text().replace("max_seconds = 90", "max_seconds = 0.2"))
    done = edgesim(
        *("replay", fixture, "--project", project, "--isolation", "inline"),
        *("--speed", "realtime", "--report", "json"),
    )
    assert json.loads(done.stdout)["seconds"] >= 0.5, done.stderr


def test_the_example_project_has_a_suite_that_passes():
    """examples/pytest-project: its own tests, run as its users run them."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=ROOT / "examples" / "pytest-project",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 passed" in done.stdout


def test_hundreds_of_processes(tmp_path):
    """400 forks at the process level: more start and exit reports than the socket can hold."""
    many = tmp_path / "many.ndjson"
    many.write_text("".join(envelope(number * 0.01, number) + "\n" for number in range(400)))
    done = replay(many, "--isolation", "process", "--report", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["responses"] == {"200": 400}


SLEEPER = """
import asyncio, time
from workers import Response, WorkerEntrypoint
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        sent = asyncio.ensure_future(self.env.Q.send("x"))
        await asyncio.sleep(0)
        time.sleep(1)
        await sent
        return Response("ok")
"""


@pytest.mark.parametrize("level", ["process", "warm"])
def test_sleeping_while_a_call_is_under_way(tmp_path, level):
    """time.sleep continues if the reply to another call arrives first."""
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "w.py").write_text(SLEEPER)
    queues = {"producers": [{"binding": "Q", "queue": "q"}]}
    wrangler = {
        "name": "w",
        "main": "w.py",
        "compatibility_date": "2026-10-01",
        "compatibility_flags": ["python_workers"],
        "queues": queues,
    }
    (tmp_path / "w" / "wrangler.jsonc").write_text(json.dumps(wrangler))
    (tmp_path / "edgesim.toml").write_text('workers = ["w"]\n')
    fixture = tmp_path / "one.ndjson"
    fixture.write_text('{"a": 1}\n')
    done = edgesim(
        "replay", fixture, "--project", tmp_path, "--isolation", level, "--report", "json"
    )
    assert json.loads(done.stdout)["responses"] == {"200": 1}, done.stdout


STORING = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        await self.env.STORE.put(request.url[-1], "1")
        return Response("ok")

    async def queue(self, batch, env, ctx):
        for message in batch.messages:
            print(message.body["action"], message.body["object"]["key"])
"""
LIFECYCLE = """
workers = ["w"]
[[r2.store.notifications]]
queue = "gone"
event = "object-delete"
[[r2.store.lifecycle]]
name = "a day"
expire_days = 1
"""


def test_objects_expire_in_virtual_time(tmp_path):
    """An object older than its lifecycle rule allows is gone, and its queue was notified."""
    settings = {
        "compatibility_date": "2026-01-01",
        "compatibility_flags": ["python_workers"],
        "r2_buckets": [{"binding": "STORE", "bucket_name": "store"}],
        "queues": {"consumers": [{"queue": "gone"}]},
    }
    write_worker(tmp_path, "w", STORING, **settings)
    (tmp_path / "edgesim.toml").write_text(LIFECYCLE)
    traffic = tmp_path / "traffic.ndjson"
    times = {"a": 0, "b": 50_000, "c": 100_000}
    requests = [{"at": at, "request": {"path": f"/{key}"}} for key, at in times.items()]
    traffic.write_text("\n".join(map(json.dumps, requests)))
    options = ("--project", tmp_path, "--isolation", "inline", "--report", "json")
    done = edgesim("replay", traffic, *options)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["stats"]
    assert found["r2"]["store"]["objects"] == 2
    assert found["queues"]["gone"]["delivered"] == 1
    assert found["invocations"]["w"] == {"ok": 4}
