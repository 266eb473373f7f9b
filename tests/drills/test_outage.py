"""The outage drill of examples/outage, on the embedded engine and on a real server."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.processes import ROOT
from tests.servers_clickhouse import prepared_server

OUTAGE = ROOT / "examples" / "outage"


def drill(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, str(OUTAGE / "drill.py"), "--isolation", "inline", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_embedded_engine_fails():
    """The engine is stopped briefly, then killed for long: every accepted event is there once."""
    assert "Every accepted event is there exactly once." in drill()


def test_a_real_server_fails(tmp_path):
    """The same with a real server without deduplication tokens, killed and restarted."""
    server = prepared_server(tmp_path)
    drilled = drill(
        *("--project", _with_ledger(tmp_path / "project"), "--server", server.command),
        *("--clickhouse", f"clickhouse+http://127.0.0.1:{server.http}"),
    )
    assert "is out of reach" in drilled
    assert "Every accepted event is there exactly once." in drilled


def _with_ledger(project: Path) -> Path:
    """Copy the example and configure it for an old server; it uses the repository's Workers."""
    shutil.copytree(OUTAGE, project, ignore=shutil.ignore_patterns(".edgesim"))
    for file in (project / "edgesim.toml", *project.glob("*/wrangler.jsonc")):
        text = file.read_text()
        text = text.replace("../../../workers", f"{ROOT}/workers")
        text = text.replace("../../workers", f"{ROOT}/workers")
        text = text.replace("schema.sql", "schema-ledger.sql")
        file.write_text(text.replace('"DEDUPLICATION": "token"', '"DEDUPLICATION": "ledger"'))
    return project
