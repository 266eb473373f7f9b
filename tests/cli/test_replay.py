"""`edgesim replay` as CI runs it, and every example."""

import json
import tomllib
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from edgesim import cli
from tests.docs.blocks import blocks_of
from tests.docs.pages import NOT_RUN
from tests.processes import ROOT, WORKERS, edgesim

EXAMPLES = sorted((ROOT / "examples").glob("*/expected.toml"))
EVENT = '{"event": "kill", "player_id": "p1", "ts": 1767225600000}'


@pytest.mark.parametrize("expected", EXAMPLES, ids=[path.parent.name for path in EXAMPLES])
def test_examples_come_to_what_they_say(expected):
    """Each example's fixture, replayed at `inline`, meets its expected.toml."""
    fixture = next(expected.parent.glob("*.ndjson*"))
    project = expected.parent if (expected.parent / "edgesim.toml").exists() else WORKERS
    done = edgesim(
        *("replay", fixture, "--project", project, "--expect", expected, "--isolation", "inline")
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("expected", EXAMPLES, ids=[path.parent.name for path in EXAMPLES])
def test_examples_are_replayed_at_the_default_level(expected):
    """The README's replay with expected.toml is among the blocks that tests/docs runs."""
    page = str((expected.parent / "README.md").relative_to(ROOT))
    command = f"--expect {expected.relative_to(ROOT)}"
    run = [each for each in blocks_of(page) if command in each.text and each.language == "sh"]
    assert run
    for block in run:
        assert "--isolation" not in block.text
        assert not any(block.first_line.startswith(start) for start in NOT_RUN.get(page, ()))


def test_a_wrong_expectation_fails(tmp_path):
    """A mismatch is shown with both sides, exit 1; JUnit counts it."""
    fixture = tmp_path / "one.ndjson"
    fixture.write_text(EVENT + "\n")
    expect = tmp_path / "expected.toml"
    expect.write_text('[responses]\n200 = 1\n[sql]\n"SELECT count() FROM events" = 2\n')
    command = ("replay", fixture, "--project", WORKERS, "--expect", expect, "--isolation", "inline")
    failed = edgesim(*command)
    assert failed.returncode == 1, failed.stderr
    assert "expected 2" in failed.stdout
    assert "got      1" in failed.stdout
    report = ET.fromstring(edgesim(*command, "--report", "junit").stdout)
    assert report.get("failures") == "1"


def test_json_report(tmp_path):
    """The JSON report has responses and the stats of every stage."""
    fixture = tmp_path / "mixed.ndjson"
    fixture.write_text(
        EVENT
        + "\n"
        + '{"request": {"body": "broken"}}\n{"request": {"method": "GET", "path": "/health"}}\n'
    )
    done = edgesim(
        *("replay", fixture, "--project", WORKERS, "--isolation", "inline", "--report", "json")
    )
    report = json.loads(done.stdout)
    assert report["responses"] == {"200": 2, "400": 1}
    assert report["stats"]["pipelines"]["events"]["records"] == 1
    assert report["stats"]["r2"]["errors"]["objects"] == 1
    assert report["stats"]["receiver"] == {"requests": 3, "rejected": 1}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("empty.ndjson", "\n", "no request"),
        ("bad.ndjson", EVENT + "\nnot json\n", "bad.ndjson: line 2"),
        ("odd.ndjson", '{"request": {"metod": "GET"}}\n', "odd.ndjson: line 1"),
        ("torn.ndjson.gz", "not gzip", "torn.ndjson.gz: cannot be read"),
        ("who.ndjson", '{"request": {}, "worker": "nobody"}\n', "'nobody'; known: receiver"),
    ],
)
def test_a_bad_fixture_is_one_line(tmp_path, name, content, expected):
    """The error names file and line of a fixture's fault, exit 2."""
    (tmp_path / name).write_text(content)
    failed = edgesim("replay", tmp_path / name, "--project", WORKERS, "--isolation", "inline")
    assert failed.returncode == 2, failed.stderr
    assert expected in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_missing_fixture_is_one_line():
    """The error names a fixture that does not exist."""
    failed = edgesim("replay", "nowhere.ndjson", "--project", WORKERS, "--isolation", "inline")
    assert failed.returncode == 2
    assert "nowhere.ndjson" in failed.stderr


def test_the_generator_makes_the_committed_fixture(tmp_path):
    """The committed fixture is the output of its README's command, byte for byte."""
    import subprocess
    import sys

    out = tmp_path / "events.ndjson.gz"
    arguments = "--count 1000 --seed 1 --malformed 0.03 --oversized 0.002 --out"
    folder = ROOT / "examples" / "game-events"
    subprocess.run(
        [sys.executable, str(folder / "generate.py"), *arguments.split(), str(out)],
        check=True,
        capture_output=True,
    )
    import gzip

    committed = (folder / "events.ndjson.gz").read_bytes()
    assert gzip.decompress(out.read_bytes()) == gzip.decompress(committed)
    assert tomllib.loads((folder / "expected.toml").read_text())["responses"]["200"] == 972


def test_examples_are_found():
    """There is at least one example, so that the tests above are not empty."""
    assert Path(EXAMPLES[0]).is_file()


def test_what_nobody_foresaw_is_named(monkeypatch, capsys):
    """An unexpected exception is named, also in exception groups of concurrent tasks; exit 3."""

    def fail(arguments):
        raise ExceptionGroup("tasks", [ExceptionGroup("more", [ValueError("an odd one")])])

    monkeypatch.setattr("edgesim.cli.replay.run", fail)
    assert cli.main(["replay", "any.ndjson"]) == 3
    assert capsys.readouterr().err == "edgesim: ValueError: an odd one (--debug shows where)\n"
