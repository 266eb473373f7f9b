"""Commands in folders that have only wrangler files, and commands for one environment."""

import json
import re
import time
from pathlib import Path

import pytest

from tests.processes import dev, edgesim

ENTRY = """
from workers import Response, WorkerEntrypoint

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        if hasattr(self.env, "OTHER"):
            return Response("by way of " + await self.env.OTHER.name())
        return Response(await self.name())

    async def name(self):
        return self.env.NAME

    async def scheduled(self, controller, env=None, ctx=None):
        if controller.cron == "0 0 1 1 *":
            controller.noRetry()
            raise ValueError("not today")
"""
PYTHON = {"compatibility_date": "2026-10-01", "compatibility_flags": ["python_workers"]}
ID = "0123456789abcdef0123456789abcdef"


def worker(folder: Path, name: str, **keys: object) -> Path:
    """Write a Worker that responds with its name, and return its wrangler file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "entry.py").write_text(ENTRY)
    table = {"name": name, "main": "entry.py", "vars": {"NAME": name}, **PYTHON, **keys}
    file = folder / "wrangler.jsonc"
    file.write_text("// deployed\n" + json.dumps(table, indent=2))
    return file


def test_dev_runs_a_folder_with_a_wrangler_file(tmp_path):
    """The Worker responds, assumptions are logged, and an edit is served."""
    folder = tmp_path / "w"
    worker(folder, "alone")
    with dev(folder, tmp_path / "state", "--isolation", "inline") as running:
        assert running.request("/", method="GET") == (200, b"alone")
        running.wait_log("no edgesim.toml: wrangler.jsonc of Worker 'alone'")
        worker(folder, "alone", vars={"NAME": "edited"})
        running.wait_log("reopening the project")
        deadline = time.monotonic() + 60
        while running.request("/", method="GET") != (200, b"edited"):
            assert time.monotonic() < deadline, "".join(running.log)


def test_dev_runs_several_wrangler_files(tmp_path):
    """The first is the entry and reaches the second, which is in another folder."""
    first = worker(tmp_path / "a", "first", services=[{"binding": "OTHER", "service": "second"}])
    second = worker(tmp_path / "b", "second")
    files = ("-c", first, "-c", second, "--isolation", "inline", "--no-reload")
    with dev(None, tmp_path / "state", *files) as running:
        assert running.request("/", method="GET") == (200, b"by way of second")


@pytest.mark.parametrize("path", ["/cdn-cgi/local/scheduled", "/cdn-cgi/handler/scheduled"])
def test_a_schedule_by_hand_under_both_paths(tmp_path, path):
    """As text, or with format=json as an object; a failure sets status 500 with format=json."""
    worker(tmp_path / "w", "w", triggers={"crons": ["0 0 1 1 *"]})
    inline = ("--isolation", "inline", "--no-reload")
    with dev(tmp_path / "w", tmp_path / "state", *inline) as running:
        assert running.request(f"{path}?cron=*+*+*+*+*", method="GET") == (200, b"ok\n")
        for cron, expected, outcome in (("*+*+*+*+*", 200, "ok"), ("0+0+1+1+*", 500, "exception")):
            query = f"?format=json&cron={cron}"
            status, body = running.request(path + query, method="GET")
            assert status == expected
            assert json.loads(body) == {"outcome": outcome, "noRetry": expected == 500}


def test_dev_runs_a_worker_for_crons_only(tmp_path):
    """A Worker without fetch can be the entry, as with wrangler; a request to it fails."""
    worker(tmp_path / "w", "w", triggers={"crons": ["0 0 1 1 *"]})
    source = "from workers import WorkerEntrypoint\n\n\nclass Default(WorkerEntrypoint):\n"
    source += (
        "    async def scheduled(self, controller, env=None, ctx=None):\n        print('ran')\n"
    )
    (tmp_path / "w" / "entry.py").write_text(source)
    with dev(tmp_path / "w", tmp_path / "state", "--no-reload") as running:
        path = "/cdn-cgi/local/scheduled?cron=*+*+*+*+*"
        assert running.request(path, method="GET") == (200, b"ok\n")
        status, body = running.request("/", method="GET")
    assert status == 500
    assert b"Handler does not export a fetch() function." in body


def test_a_worker_of_assets_only(tmp_path):
    """Wrangler deploys one without `main`; here the line says that it has no code to run."""
    (tmp_path / "wrangler.jsonc").write_text('{"name": "site", "assets": {"directory": "."}}')
    done = edgesim("check", tmp_path)
    assert done.returncode == 2
    assert "main: is missing: a Worker of static assets only has no code to run" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def project(folder: Path) -> Path:
    """A project whose environment has its own resources and a deployed stream's old key."""
    staging = {
        "vars": {"NAME": "staging"},
        "r2_buckets": [{"binding": "FILES", "bucket_name": "files-staging"}],
        "queues": {"producers": [{"binding": "JOBS", "queue": "jobs-staging", "dely": 1}]},
        "pipelines": [{"binding": "P", "pipeline": ID}],
        "d1_databases": [{"binding": "CACHE"}],
    }
    broken = {"r2_buckets": [{"binding": "B", "bucket_name": "B"}]}
    old_style = [{"binding": "P", "pipeline": "clicks"}]
    environments = {"staging": staging, "broken": broken}
    worker(folder / "w", "w", pipelines=old_style, env=environments)
    toml = f'workers = ["w"]\n[pipelines.clicks]\nbucket = "clicks"\nid = "{ID}"\n'
    (folder / "edgesim.toml").write_text(toml)
    return folder


def test_check_of_an_environment(tmp_path):
    """The resources of that environment are checked; an error names its key."""
    folder = project(tmp_path)
    top = edgesim("check", folder)
    assert "CACHE" not in top.stdout
    staging = edgesim("check", folder, "--env", "staging")
    assert (staging.returncode, "`env.CACHE` is not there" in staging.stdout) == (0, True)
    assert "no key `queues.producers[0].dely` in env.staging" in staging.stdout
    broken = edgesim("check", folder, "--env", "broken")
    assert broken.returncode == 2
    assert "r2_buckets[0].bucket_name: 'B' is no bucket name" in broken.stderr
    assert edgesim("check", folder, "--env", "none").returncode == 2


def test_export_of_an_environment(tmp_path):
    """The script creates that environment's resources; ids and old keys become stream names."""
    out = tmp_path / "out"
    done = edgesim(
        "export", "cloudflare", project(tmp_path / "p"), "--env", "staging", "--out", out
    )
    assert done.returncode == 0, done.stderr
    script = (out / "setup.sh").read_text()
    assert "bucket files-staging\n" in script
    assert "queue jobs-staging\n" in script
    assert "deploy w-staging --env staging\n" in script
    assert "bind_stream w-staging/wrangler.jsonc clicks\n" in script
    text = (out / "w-staging" / "wrangler.jsonc").read_text()
    assert text.startswith("// deployed\n")
    assert ID not in text
    written = json.loads(text.partition("\n")[2])
    assert written["pipelines"] == [{"binding": "P", "stream": "clicks"}]
    assert written["env"]["staging"]["pipelines"] == [{"binding": "P", "stream": "clicks"}]


def test_export_without_edgesim_toml_leaves_earlier_exports_out(tmp_path):
    """The Worker's folder may contain an earlier export; it is not exported again."""
    folder = tmp_path / "w"
    worker(folder, "w", pipelines=[{"binding": "EVENTS", "stream": ID}])
    for _ in range(2):
        done = edgesim("export", "cloudflare", cwd=folder)
        assert done.returncode == 0, done.stderr
    assert sorted(each.name for each in (folder / "cloudflare" / "w").iterdir()) == [
        "entry.py",
        "pyproject.toml",
        "wrangler.jsonc",
    ]
    assert '"stream": "events"' in (folder / "cloudflare" / "w" / "wrangler.jsonc").read_text()
    setup = (folder / "cloudflare" / "setup.sh").read_text()
    assert re.search(r"stream events\b", setup)


def test_a_replay_without_edgesim_toml(tmp_path):
    """A fixture with a byte-order mark runs against a folder with only a wrangler file."""
    worker(tmp_path / "w", "w")
    (tmp_path / "events.ndjson").write_text('\ufeff{"a": 1}\n', "utf-8")
    done = edgesim("replay", tmp_path / "events.ndjson", "--project", tmp_path / "w")
    assert done.returncode == 0, done.stderr


def test_config_and_folder_together_are_refused(tmp_path):
    """They are mutually exclusive; the error names a file that does not exist."""
    file = worker(tmp_path / "w", "w")
    both = edgesim("check", tmp_path / "w", "-c", file)
    assert (both.returncode, "not both" in both.stderr) == (2, True)
    missing = edgesim("check", "-c", tmp_path / "nothing.jsonc")
    assert (missing.returncode, "there is no file" in missing.stderr) == (2, True)


WRONG = [
    {"queues": {"consumers": [{"queue": "q", "max_batch_size": 500}]}},
    {"queues": {"consumers": [{"queue": "q", "dead_letter_queue": "q"}]}},
    {"r2_buckets": [{"binding": "B", "bucket_name": "Not A Bucket"}]},
    {"observability": {"enabled": True, "head_sampling_rate": 7}},
]


@pytest.mark.parametrize("keys", WRONG)
def test_commands_agree_on_what_is_wrong(tmp_path, keys):
    """check, dev and export print the same line, with the file and the key, and exit with 2."""
    worker(tmp_path / "w", "w", **keys)
    commands = [("check",), ("dev", "--port", "0"), ("export", "cloudflare")]
    ended = [edgesim(*command, "-c", tmp_path / "w" / "wrangler.jsonc") for command in commands]
    assert {each.returncode for each in ended} == {2}
    lines = {each.stderr for each in ended}
    assert len(lines) == 1
    assert "w/wrangler.jsonc: " in lines.pop()
