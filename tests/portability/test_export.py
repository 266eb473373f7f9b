"""The official tools accept the output of ``edgesim export cloudflare``."""

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.portability.node import HERE, MODULES, node_for
from tests.processes import WORKERS, edgesim

NAMESPACES = """"kv_namespaces": [
  { "binding": "SEEN", "id": "seen (x) [1].*", "preview_id": "seen (x) [1].*" },
  { "binding": "DEPLOYED", "id": "0123456789abcdef0123456789abcdef" },
  { "binding": "PROVISIONED" }]"""
ENVIRONMENT = {"WRANGLER_SEND_METRICS": "false", "NO_COLOR": "1", "CI": "true"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Workers of this repository, with a secret, a rule with a prefix, and a schema."""
    folder = tmp_path_factory.mktemp("project") / "workers"
    shutil.copytree(WORKERS, folder, ignore=shutil.ignore_patterns(".edgesim"))
    wrangler_file = folder / "insert" / "wrangler.jsonc"
    text = wrangler_file.read_text().rstrip().removesuffix("}").rstrip().removesuffix(",")
    wrangler_file.write_text(f"{text}, {NAMESPACES} }}")
    (folder / "receiver" / ".dev.vars").write_text('API_KEY="do-not-tell"\n')
    with (folder / "edgesim.toml").open("a") as file:
        file.write('[[r2.backup.notifications]]\nqueue = "ingest"\nprefix = "in here/"\n')
        file.write('[[r2.backup.lifecycle]]\nname = "old ones"\nprefix = "in here/"\n')
        file.write("expire_days = 30\nia_transition_days = 0.5\n")
        file.write('[[r2.backup.lifecycle]]\nname = "all"\nexpire_date = 2030-01-31\n')
        file.write('[pipelines.audit]\nbucket = "backup"\nlayout = "current"\n')
        file.write('schema = [{ name = "n", type = "int64", required = true },')
        file.write(' { name = "l", type = "list", items = { type = "string" } }]\n')
    return folder


@pytest.fixture(scope="module")
def exported(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported folder of ``project``."""
    out = tmp_path_factory.mktemp("export") / "out"
    done = edgesim("export", "cloudflare", project, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


class Account:
    """A fake account for setup.sh to run against."""

    def __init__(self, exported: Path, folder: Path) -> None:
        self.out = folder / "out"
        shutil.copytree(exported, self.out)
        self._state = folder / "account.json"
        self._bin = folder / "bin"
        self._bin.mkdir()
        for tool in ("npx", "uv"):
            script = self._bin / tool
            fake = HERE / "fake_account.py"
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{fake}" {tool} "$@"\n')
            script.chmod(0o755)

    def set_up(self, **secrets: str) -> list[list[str]]:
        """Run setup.sh once with the secrets set; return the calls that it made."""
        before = len(self.log())
        node = Path(node_for("wrangler")).parent
        environment = os.environ | secrets | {"FAKE_ACCOUNT": str(self._state)}
        environment["PATH"] = f"{self._bin}:{node}:{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", self.out / "setup.sh"],
            capture_output=True,
            text=True,
            env=environment,
            input="typed",
            timeout=280,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return self.log()[before:]

    def log(self) -> list[list[str]]:
        if not self._state.is_file():
            return []
        return list(json.loads(self._state.read_text())["log"])

    def things(self) -> dict[str, dict[str, Any]]:
        return dict(json.loads(self._state.read_text())["things"])


@pytest.fixture(scope="module")
def account(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Account:
    return Account(exported, tmp_path_factory.mktemp("account"))


@pytest.fixture(scope="module")
def first_run(account: Account) -> list[list[str]]:
    """The calls that the first run of setup.sh made."""
    return account.set_up(CLICKHOUSE_URL="https://db.example", API_KEY="from the environment")


def test_nothing_secret_leaves(exported):
    """The export names secrets, but does not contain their values."""
    texts = [each.read_text() for each in exported.rglob("*") if each.is_file()]
    assert not any("do-not-tell" in text for text in texts)
    assert "secret receiver API_KEY" in (exported / "setup.sh").read_text()


def test_wrangler_files_and_modules_are_as_they_were(exported, project):
    """The export copies the Workers' wrangler files unchanged."""
    for file in project.glob("*/wrangler.jsonc"):
        copy = exported / file.parent.name
        assert (copy / file.name).read_bytes() == file.read_bytes()
        assert (copy / "pyproject.toml").is_file()


def test_schemas_become_files(exported):
    """A stream's schema is written to a file, from which wrangler reads the columns."""
    assert json.loads((exported / "streams" / "audit.json").read_text()) == {
        "fields": [
            {"name": "n", "type": "int64", "required": True},
            {"name": "l", "type": "list", "required": False,
             "items": {"type": "string", "required": False}},
        ]
    }  # fmt: skip


def test_a_folder_of_something_else_is_left_alone(tmp_path, project, exported):
    """An export replaces an earlier one; any other folder that is not empty is refused."""
    (tmp_path / "mine").write_text("x")
    refused = edgesim("export", "cloudflare", project, "--out", tmp_path)
    assert refused.returncode == 2
    assert "is not empty" in refused.stderr
    assert edgesim("export", "cloudflare", project, "--out", exported).returncode == 0


def test_the_script_is_clean(exported):
    """shellcheck reports nothing for setup.sh."""
    if shutil.which("shellcheck") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no shellcheck (make portability)")
        pytest.skip("no shellcheck (make portability)")
    done = subprocess.run(
        ["shellcheck", exported / "setup.sh"], capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
    assert done.returncode == 0


def test_the_script_makes_everything_in_order(first_run, account):
    """Dependencies come first: buckets, queues, streams, Workers, then rules."""
    things = account.things()
    assert set(things["bucket"]) == {"backup", "errors", "events"}
    assert set(things["queue"]) == {"ingest", "ingest-errors", "ingest-dlq"}
    assert set(things["streams"]) == set(things["pipelines"]) == {"events", "errors", "audit"}
    assert "streams/audit.json" in things["streams"]["audit"]
    assert "--partitioning" not in things["sinks"]["audit_sink"]
    assert "90" in things["sinks"]["events_sink"]
    deployed = [call[0] for call in first_run if call[1:] in (["deploy"], ["pywrangler", "deploy"])]
    assert deployed[0] == "clickhouse"
    assert deployed.index("tail") < deployed.index("receiver")
    assert deployed.index("large-payload") < deployed.index("receiver")
    kinds = [" ".join(call[1:4]) for call in first_run if "create" in call or "deploy" in call]
    firsts = ["r2 bucket create", "queues create ingest-dlq", "pipelines streams create", "deploy"]
    places = [kinds.index(each) for each in firsts]
    assert places == sorted(places)
    assert kinds[-3:] == ["r2 bucket notification"] * 3


def test_the_script_adds_lifecycle_rules(first_run, account):
    """Every rule is added once, under its name, with the values of edgesim.toml."""
    assert account.things()["lifecycle backup"] == {
        "old ones": ["in here/", "--expire-days", "30", "--ia-transition-days", "0.5"],
        "all": ["", "--expire-date", "2030-01-31"],
    }


def test_the_script_binds_streams_by_their_ids(first_run, account):
    """The script replaces a stream's name in the wrangler file by its id."""
    text = (account.out / "tail" / "wrangler.jsonc").read_text()
    assert '"stream": "id-of-events"' in text
    assert '"stream": "id-of-errors"' in text


def test_the_script_binds_namespaces_by_their_ids(first_run, account):
    """A title in the wrangler file is replaced by its id; an id, or none, is left as it is."""
    text = (account.out / "insert" / "wrangler.jsonc").read_text()
    assert list(account.things()["namespace"]) == ["seen (x) [1].*"]
    assert '"SEEN", "id": "id-of-seen (x) [1].*", "preview_id": "seen (x) [1].*"' in text
    assert '"id": "0123456789abcdef0123456789abcdef"' in text
    assert '{ "binding": "PROVISIONED" }' in text


def test_secrets_come_from_the_environment_or_are_asked_for(first_run, account):
    """Secrets set in the environment are used; the others are read from standard input."""
    assert account.things()["secret receiver"] == {"API_KEY": ["from the environment"]}
    assert account.things()["secret clickhouse"]["CLICKHOUSE_URL"] == ["https://db.example"]
    assert "CLICKHOUSE_PASSWORD" in account.things()["secret clickhouse"]


def test_the_script_can_run_again(first_run, account):
    """A second run deploys again, but creates nothing."""
    text = (account.out / "tail" / "wrangler.jsonc").read_text()
    again = account.set_up()
    made = [call for call in again if {"create", "add", "put"} & {*call}]
    assert made == []
    assert sum("deploy" in call for call in again) == sum("deploy" in call for call in first_run)
    assert (account.out / "tail" / "wrangler.jsonc").read_text() == text


def wrangler(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the official command line."""
    return subprocess.run(
        [
            node_for("wrangler"),
            MODULES / "wrangler" / "bin" / "wrangler.js",
            *map(str, arguments),
        ],
        cwd=cwd,
        env=os.environ | ENVIRONMENT | {"HOME": str(cwd)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def test_the_official_command_line_has_every_command_and_option(first_run, exported):
    """wrangler has every command and option that the script uses."""
    used: dict[tuple[str, ...], set[str]] = {}
    for call in first_run:
        words = call[1:]
        end = next((i for i, word in enumerate(words) if word in {"create", "put"}), None)
        if end is not None:
            options = {word for word in words if word.startswith("--")}
            used.setdefault(tuple(words[: end + 1]), set()).update(options)
    assert len(used) == 8
    with ThreadPoolExecutor(2) as pool:
        helps = pool.map(lambda command: wrangler(*command, "--help", cwd=exported), used)
        for command, shown in zip(used, helps, strict=True):
            known = set(re.findall(r"--[a-z-]+", shown.stdout))
            assert f"wrangler {' '.join(command)}" in shown.stdout
            assert used[command] <= known, command


def test_the_official_dry_run_accepts_every_worker(exported, tmp_path):
    """``wrangler deploy --dry-run`` succeeds offline for every Worker, without a warning."""
    node_for("wrangler")
    folders = [each.parent for each in exported.glob("*/wrangler.jsonc")]
    assert len(folders) >= 6
    with ThreadPoolExecutor(2) as pool:
        runs = pool.map(
            lambda folder: wrangler(
                "deploy", "--dry-run", "--outdir", tmp_path / folder.name, cwd=folder
            ),
            folders,
        )
        for folder, done in zip(folders, runs, strict=True):
            assert done.returncode == 0, done.stdout + done.stderr
            assert "--dry-run: exiting now." in done.stdout
            assert "WARNING" not in done.stdout + done.stderr, folder.name


class Database(http.server.BaseHTTPRequestHandler):
    """Replies with the request as JSON."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"] or 0))
        seen = {
            "path": self.path,
            "user": self.headers["x-clickhouse-user"],
            "key": self.headers["x-clickhouse-key"],
            "encoding": self.headers["content-encoding"],
            "body": body.decode("latin-1"),
        }
        content = json.dumps(seen).encode()
        self.send_response(418)
        self.send_header("content-length", str(len(content)))
        self.send_header("x-clickhouse-query-id", "q1")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""


@pytest.fixture
def database() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Database)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


WORKERD = """using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "main", worker = (
      modules = [(name = "proxy", esModule = embed "proxy.js")],
      compatibilityDate = "2026-07-01",
      bindings = [
        (name = "CLICKHOUSE_URL", text = "{database}"),
        (name = "CLICKHOUSE_USER", text = "someone"),
        (name = "CLICKHOUSE_PASSWORD", text = "secret"),
      ],
      globalOutbound = "network",
    )),
    (name = "network", network = (allow = ["local"])),
  ],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);
"""


@pytest.fixture
def proxy(exported: Path, database: str, tmp_path: Path) -> Iterator[str]:
    """URL of the proxy Worker, which runs in workerd."""
    node_for("workerd")
    shutil.copyfile(exported / "clickhouse" / "proxy.js", tmp_path / "proxy.js")
    config = tmp_path / "config.capnp"
    config.write_text(WORKERD.replace("{database}", database))
    binary = next(MODULES.glob("@cloudflare/workerd-*/bin/workerd"))
    with subprocess.Popen(
        [binary, "serve", config, "--control-fd=1"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        started = json.loads(process.stdout.readline())
        yield f"http://127.0.0.1:{started['port']}"
        process.terminate()


def test_the_proxy_passes_requests_on(proxy):
    """Path, query, headers and body arrive with the credentials; the reply is passed back."""
    request = urllib.request.Request(
        f"{proxy}/?query=INSERT%20x", b"rows", {"content-encoding": "gzip"}
    )
    with pytest.raises(urllib.error.HTTPError) as answer:
        urllib.request.urlopen(request, timeout=30)
    assert answer.value.code == 418
    assert answer.value.headers["x-clickhouse-query-id"] == "q1"
    assert json.loads(answer.value.read()) == {
        "path": "/?query=INSERT%20x",
        "user": "someone",
        "key": "secret",
        "encoding": "gzip",
        "body": "rows",
    }
    answer.value.close()
