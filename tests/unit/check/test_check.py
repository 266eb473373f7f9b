"""Findings of ``edgesim check``: rules, lines, levels and output formats."""

import json
import textwrap
from pathlib import Path

import pytest

from edgesim.check import Finding, check_project, loading
from edgesim.check.findings import FORMATS
from edgesim.config import load_project
from tests.processes import ROOT, WORKERS, edgesim

WRANGLER = {
    "name": "w",
    "main": "w.py",
    "compatibility_date": "2026-10-01",
    "compatibility_flags": ["python_workers"],
}
CLEAN = """
from workers import Response, WorkerEntrypoint


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("ok")
"""


def project(folder: Path, source: str = CLEAN, **settings: object) -> Path:
    """Write a project of one Worker; settings replace its wrangler keys, None removes one."""
    (folder / "w").mkdir(exist_ok=True)
    (folder / "w" / "w.py").write_text(textwrap.dedent(source))
    table = {key: value for key, value in (WRANGLER | settings).items() if value is not None}
    (folder / "w" / "wrangler.jsonc").write_text(json.dumps(table, indent=1))
    (folder / "edgesim.toml").write_text(
        'workers = ["w"]\n[pipelines.events]\nbucket = "events"\n[backends]\nr2 = "memory:"\n'
    )
    return folder


def found(folder: Path) -> list[Finding]:
    return check_project(load_project(folder))


def body(text: str) -> str:
    """A module whose fetch handler has these lines; they begin at line 5."""
    head = "from workers import Response, WorkerEntrypoint, fetch\nimport json\n"
    head += "class Default(WorkerEntrypoint):\n    async def fetch(self, request):\n"
    return head + textwrap.indent(textwrap.dedent(text).strip("\n"), " " * 8) + "\n"


def test_a_clean_project_has_no_findings(tmp_path):
    """A minimal Worker, this repository's Workers and its examples have no findings."""
    assert found(project(tmp_path)) == []
    assert found(WORKERS) == []
    examples = [file.parent for file in (ROOT / "examples").glob("*/edgesim.toml")]
    assert len(examples) >= 2
    assert [each for folder in examples for each in found(folder)] == []


SOURCES = [
    ("import numpy\n" + CLEAN, 1, "error", "import", "no module 'numpy'"),
    ("import src.event\n" + CLEAN, 1, "error", "import", "`src`"),
    ("import tkinter\n" + CLEAN, 1, "error", "import", "no module 'tkinter'"),
    ("from dbm import dumb\n" + CLEAN, 1, "error", "import", "no module 'dbm'"),
    ("import ssl\n" + CLEAN, 1, "warning", "import", "not in every Python"),
    ("import cgi\n" + CLEAN, 1, "error", "import", "no module 'cgi'"),
    ("import socket\n" + CLEAN, 1, "error", "import", "fails at its first use"),
    ("from concurrent.futures import Future\n" + CLEAN, 1, "error", "import", "first use"),
    ("import threading as t\n" + body("t.Thread()"), 6, "error", "thread", "no thread"),
    (body("open('x')"), 5, "warning", "file", "memory of one isolate"),
    ("import random\nx = random.random()\n" + CLEAN, 2, "error", "global-scope", "randomness"),
    ("from uuid import uuid4 as u\nx = u()\n" + CLEAN, 2, "error", "global-scope", "uuid.uuid4"),
    ("import time\n\ndef f(*, a, b=time.time()):\n    pass\n" + CLEAN, 3, "warning",
     "global-scope", "moment"),
    ("import time\nx = time.time()\n" + CLEAN, 2, "warning", "global-scope", "moment"),
    ("import random\n\ndef f():\n    return random.choice('ab')\n\nx = f()\n" + CLEAN, 4, "error",
     "loading", "Disallowed operation"),
    ("x = 1 / 0\n" + CLEAN, 1, "error", "loading", "ZeroDivisionError"),
    ("from workers import env\nx = env.ABSENT\n" + CLEAN, 2, "error", "loading", "ABSENT"),
    ("import os\nos._exit(3)\n" + CLEAN, 1, "error", "loading", "status 3"),
    ("seen = []\n" + body("seen.append(1)"), 6, "warning", "state", "'seen'"),
    ("seen: dict = {}\n" + body("seen['a'] = 1"), 6, "warning", "state", "'seen'"),
    ("n = 0\n" + body("global n\nn += 1"), 7, "warning", "state", "'n'"),
    ("def on_fetch(request):\n    pass\n", 1, "error", "handler", "module-level on_fetch"),
    ("x = 1\n", 1, "error", "handler", "no class Default"),
    ("def (\n", 1, "error", "syntax", "invalid syntax"),
    (CLEAN + "    async def queue(self, batch):\n        pass\n", 7, "error", "handler", "three"),
    (CLEAN + "    def tail(self, events, env):\n        pass\n", 7, "error", "handler", "three"),
    (CLEAN + "    def scheduled(self, c, e, x, y):\n        0\n", 7, "error", "handler", "three"),
    (CLEAN + "    def __init__(self, ctx, env):\n        self.x = 1\n", 7, "error", "handler",
     "super().__init__"),
    (body("await self.env.PIPELINE.send([])"), 5, "warning", "pipeline-send", "iterator"),
    (body("self.env['PIPELINE']"), 5, "error", "sdk", "no []"),
    (body("self.env.PIPELINES"), 5, "warning", "env", "used and not configured"),
    (CLEAN.replace('"ok"', "request.scope['env'].OTHER"), 6, "warning", "env", "env.OTHER"),
    ("from workers import env\ndef f():\n    env.X, env.X\n" + CLEAN, 3, "warning", "env", "X"),
    (body("await fetch('http://x/', json={})"), 5, "error", "sdk", "`json=`"),
    (body("await fetch('http://x/', method='POST', body={})"), 5, "error", "sdk", "object Object"),
    (body("m.retry(delay_seconds=5)"), 5, "error", "sdk", "`delay_seconds=`"),
    (body("m.retry(5)"), 5, "error", "sdk", "retry(5)"),
    (body("await self.env.QUEUE.send([(1, 2)])"), 5, "error", "sdk", "tuple"),
    (body("return Response({'a': 1})"), 5, "error", "sdk", "no dict"),
    (body("self.ctx.wait_until(x())"), 5, "error", "sdk", "no wait_until"),
    ("from workers import wait_until\n" + CLEAN, 1, "warning", "sdk", "coroutine"),
]  # fmt: skip


@pytest.fixture
def unloaded(monkeypatch):
    """Skip loading the module: most rows are about its source only, and it is slow."""
    monkeypatch.setattr("edgesim.check.project.check_loading", lambda *_: ())


@pytest.mark.parametrize(("source", "line", "level", "rule", "problem"), SOURCES)
def test_sources(source, line, level, rule, problem, tmp_path, request):
    """Each mistake in a module is the only finding, at its line and with its rule."""
    if rule != "loading":
        request.getfixturevalue("unloaded")
    folder = project(
        tmp_path,
        source.lstrip("\n"),
        pipelines=[{"binding": "PIPELINE", "stream": "events"}],
        queues={"producers": [{"binding": "QUEUE", "queue": "q"}]},
    )
    others = {"role"}  # the "role" rule has its own tests
    seen = [each for each in found(folder) if each.rule not in others]
    assert [(each.line, each.level, each.rule) for each in seen] == [(line, level, rule)]
    assert problem in seen[0].problem
    assert seen[0].file.endswith("w/w.py")
    assert seen[0].cure


SPIN = "import time as t\nend = t.thread_time() + {}\n"
SPIN += "while t.thread_time() < end: sum(range(10**5))\n"


@pytest.fixture
def impatient(monkeypatch):
    """Warn of imports that take less than the platform's second of CPU."""
    assert loading.STARTUP_SECONDS == 1
    monkeypatch.setattr(loading, "STARTUP_SECONDS", 0.4)


@pytest.mark.usefixtures("impatient")
def test_a_slow_import_is_a_warning(tmp_path):
    """A module takes more CPU than the limit at every import; one that fails is only failing."""
    slow = found(project(tmp_path, SPIN.format(0.7) + CLEAN))
    assert [(each.rule, each.level) for each in slow] == [("startup", "warning")]
    failing = found(project(tmp_path, SPIN.format(0.7) + "1 / 0\n" + CLEAN))
    assert [each.rule for each in failing] == ["loading"]


def test_packages_without_init_are_read(tmp_path, unloaded):
    """Modules that are imported relatively, from a package without ``__init__.py``, are checked."""
    folder = project(tmp_path, "from art.sprites import draw\n" + CLEAN)
    package = folder / "w" / "art" / "inner"
    package.mkdir(parents=True)
    (package.parent / "sprites.py").write_text("from .inner import lines\nfrom . import dots\n")
    (package.parent / "dots.py").write_text("import ssl\n")
    (package / "lines.py").write_text("from ..dots import x\nfrom ...beyond import y\nimport dbm\n")
    seen = [(each.file, each.line, each.rule) for each in found(folder)]
    assert seen == [("w/art/dots.py", 1, "import"), ("w/art/inner/lines.py", 3, "import")]


OLD = "2025-08-13"
ON_FETCH = CLEAN.replace("def fetch", "def on_fetch")
MODULE_LEVEL = "async def on_fetch(request, env): pass\n\ndef on_queue(batch): pass\n"
CONSUMER = {"queues": {"consumers": [{"queue": "q"}]}}


@pytest.mark.parametrize(
    ("source", "date", "settings", "problem"),
    [
        (MODULE_LEVEL, OLD, CONSUMER, ""),
        (MODULE_LEVEL, OLD, {}, "has a `queue` handler that nothing calls"),
        ("def on_fetch(): pass\n", OLD, CONSUMER, "has no `queue` handler"),
        (MODULE_LEVEL, "2025-08-14", {}, "module-level on_fetch is not called"),
        (CLEAN + MODULE_LEVEL, OLD, CONSUMER, "on_fetch and class Default are two default"),
        (ON_FETCH, OLD, {}, ""),
        (ON_FETCH, "2025-08-14", {}, "since compatibility date 2025-08-14 fetch is called"),
        (CLEAN, OLD, {}, "before compatibility date 2025-08-14 on_fetch is called"),
        (CLEAN + "    on_fetch = fetch\n    def on_fetch(self): pass\n", OLD, {}, ""),
    ],
)
def test_names_of_handlers_follow_the_date(tmp_path, source, date, settings, problem):
    """Module-level handlers, and on_fetch of a class, are called before 2025-08-14 only."""
    findings = found(project(tmp_path, source, compatibility_date=date, **settings))
    problems = [each.problem for each in findings if each.rule in {"handler", "role", "loading"}]
    assert any(problem in each for each in problems) if problem else not problems


@pytest.mark.usefixtures("impatient")
def test_one_slow_import_is_no_finding(tmp_path):
    """An import that a loaded machine slows down once is measured again."""
    spin = f"import os\nif not os.path.exists({str(tmp_path / 'again')!r}):\n"
    spin += f"    open({str(tmp_path / 'again')!r}, 'w').close()\n"
    spin += textwrap.indent(SPIN.format(0.7), "    ")
    assert [each.rule for each in found(project(tmp_path, spin + CLEAN))] == ["file"]
    assert (tmp_path / "again").exists()


def test_an_endless_import_ends(tmp_path, monkeypatch):
    """An import ends with its limit of CPU time."""
    monkeypatch.setattr("edgesim.check.loading.LOADING_SECONDS_MAX", 1)
    [only] = found(project(tmp_path, "while True: pass\n" + CLEAN))
    assert (only.rule, only.level) == ("loading", "error")
    assert "more than 1 s of CPU" in only.problem


SETTINGS = [
    ({"compatibility_date": None}, 1, "error", "compatibility", "no `compatibility_date`"),
    ({"compatibility_date": "2025-08-20"}, 4, "warning", "compatibility", "wraps no R2"),
    ({"compatibility_date": "2025-08-20", "r2_buckets": [{"binding": "B", "bucket_name": "bbb"}]},
     4, "error", "compatibility", "wraps no R2"),
    ({"observability": {"enabled": True, "head_sampling": 1}}, 10, "error", "unknown-key",
     "`observability.head_sampling`"),
    ({"queues": {"producers": [{"binding": "Q", "queue": "q", "delivery_dely": 1}]}}, 13, "error",
     "unknown-key", "`queues.producers[0].delivery_dely`"),
    ({"usage_model": "bundled"}, 8, "warning", "unknown-key", "no key `usage_model`"),
    ({"ai_search": [{"binding": "CACHE", "instance_name": "1"}]}, 10, "warning", "no-binding",
     "`env.CACHE` is not there"),
    ({"ai": {"binding": "AI"}}, 9, "warning", "no-binding", "no `ai`"),
    ({"durable_objects": {"bindings": [{"name": "D", "class_name": "C"}]}}, 11, "warning",
     "no-binding", "`env.D`"),
    ({"queues": {"producers": [{"binding": "Q", "queue": "q", "delivery_delay": 1}]}}, 13,
     "warning", "left-out", "no effect"),
    ({"pipelines": [{"binding": "P", "pipeline": "events"}]}, 11, "warning", "deprecated",
     "old name"),
    ({"compatibility_flags": ["x"]}, 5, "error", "compatibility", "python_workers"),
    ({"varz": {}}, 8, "error", "unknown-key", "no key `varz`"),
    ({"triggers": {"cron": []}}, 9, "error", "unknown-key", "`triggers.cron`"),
    ({"env": {"dev": {"varz": 1}}}, 10, "error", "unknown-key", "no key `varz`"),
    ({"ai_search": []}, 8, "warning", "left-out", "`ai_search`"),
    ({"vars": {"BIG": "x" * 5001}}, 9, "error", "size", "5,001 bytes"),
    ({"vars": {f"V{n}": "" for n in range(129)}}, 8, "error", "size", "129 variables"),
    ({"triggers": {"crons": ["* * * * *"]}}, 9, "error", "role", "no `scheduled` handler"),
    ({"queues": {"consumers": [{"queue": "q"}]}}, 9, "error", "role", "no `queue` handler"),
    ({"tail_consumers": [{"service": "w"}]}, 8, "error", "role", "no `tail` handler"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "line", "level", "rule", "problem"), SETTINGS)
def test_settings(settings, line, level, rule, problem, tmp_path, unloaded):
    """Each mistake in a wrangler file is the only finding, at its line and with its rule."""
    seen = found(project(tmp_path, **settings))
    assert [(each.line, each.level, each.rule) for each in seen] == [(line, level, rule)]
    assert problem in seen[0].problem


def test_what_loading_runs_into_is_said_once(tmp_path):
    """A loading error at a line that already has a finding is not reported again."""
    seen = found(project(tmp_path, "import random\nx = random.random()\n" + CLEAN))
    assert [(each.line, each.rule) for each in seen] == [(2, "global-scope")]


def test_handlers_that_nothing_calls(tmp_path, unloaded):
    """A queue, cron or tail handler without a trigger is a warning."""
    extra = "".join(
        f"    async def {name}(self, x, env=None, ctx=None):\n        pass\n"
        for name in ("queue", "scheduled", "tail")
    )
    seen = found(project(tmp_path, CLEAN + extra))
    assert [(each.level, each.rule) for each in seen] == [("warning", "role")] * 3


def test_vendored_packages_are_known_and_looked_at(tmp_path):
    """A package in python_modules can be imported; a native library of this machine is an error."""
    folder = project(tmp_path, "import pack\n" + CLEAN)
    package = folder / "w" / "python_modules" / "pack"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    assert found(folder) == []
    (package / "fast.cpython-313-x86_64-linux-gnu.so").write_bytes(b"\x7fELF")
    (package / "good.cpython-313-wasm32-emscripten.so").write_bytes(b"\0asm")
    assert [each.rule for each in found(folder)] == ["package"]


def test_files_that_get_in_the_way(tmp_path, unloaded):
    """requirements.txt, which Cloudflare's tool rejects, and a second wrangler file are errors."""
    folder = project(tmp_path)
    (folder / "w" / "requirements.txt").write_text("x\n")
    (folder / "w" / "wrangler.toml").write_text("")
    assert [(each.rule, each.level) for each in found(folder)] == [("files", "error")] * 2


def test_another_env_is_not_the_workers(tmp_path, unloaded):
    """Attributes of a module variable named env, and of the env proxy itself, are not checked."""
    source = "class Templates:\n    pass\nenv = Templates()\n"
    source += body("env.get_template, self.env.to_py(), self.env.js_id")
    assert found(project(tmp_path, source)) == []


NAMED = """
from workers import Response, WorkerEntrypoint
from elsewhere import Imported

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("ok")

class Admin(Default):
    pass

class Plain:
    pass
"""


@pytest.mark.parametrize(
    ("name", "known"),
    [("Admin", True), ("Imported", True), ("default", True), ("Plain", False), ("Adm", False)],
)
def test_entrypoint_of_a_service_binding(name, known, tmp_path, unloaded):
    """The class that a binding names is looked for in the main module of the Worker it binds."""
    service = {"binding": "SELF", "service": "w", "entrypoint": name}
    folder = project(tmp_path, NAMED, services=[service])
    (folder / "w" / "elsewhere.py").write_text("class Imported: pass\n")
    wrong = [each for each in found(folder) if "no class" in each.problem]
    assert [(each.file, each.rule, each.level) for each in wrong] == (
        [] if known else [("w/wrangler.jsonc", "role", "error")]
    )


def test_packages_that_are_declared_and_not_vendored_yet(tmp_path):
    """A declared package is a warning without python_modules, an error if missing from it."""
    folder = project(tmp_path, "import pack\n" + CLEAN)
    (folder / "w" / "pyproject.toml").write_text('[project]\ndependencies = ["pack"]\n')
    assert [(each.level, each.rule) for each in found(folder)] == [("warning", "import")]
    (folder / "w" / "python_modules").mkdir()
    assert [(each.level, each.rule) for each in found(folder)] == [("error", "import")]


def test_what_the_platform_has_and_edgesim_has_not_is_a_warning(tmp_path):
    """A class that only Cloudflare has, such as DurableObject, is a warning."""
    seen = found(project(tmp_path, "from workers import DurableObject\n" + CLEAN))
    assert [(each.line, each.level, each.rule) for each in seen] == [(1, "warning", "loading")]


def test_local_names_are_no_state(tmp_path, unloaded):
    """A local variable with the name of a global is not reported as global state."""
    source = "seen = []\n" + body("seen = []\nseen.append(1)\nself.x = seen")
    assert found(project(tmp_path, source)) == []


def test_formats():
    """A finding can be written as text, as a GitHub workflow command and as JSON."""
    finding = Finding("w/w.py", 3, "error", "sdk", "a: 100% problem", "The cure")
    assert FORMATS["text"]([finding]) == "w/w.py:3: error: a: 100% problem. The cure. [sdk]"
    assert FORMATS["github"]([finding]) == (
        "::error file=w/w.py,line=3,title=sdk::a: 100%25 problem. The cure."
    )
    assert json.loads(FORMATS["json"]([finding]))[0]["line"] == 3


def test_the_command(tmp_path):
    """The exit status is 1 with errors, 0 with only warnings or nothing, 2 without a project."""
    bad = edgesim("check", project(tmp_path, "import socket\n" + CLEAN), "--format", "github")
    assert bad.returncode == 1
    assert bad.stdout.startswith("::error file=")
    warned = edgesim("check", project(tmp_path, "import ssl\n" + CLEAN))
    assert warned.returncode == 0
    assert "warning" in warned.stdout
    assert edgesim("check", cwd=ROOT).returncode == 0
    assert edgesim("check", tmp_path / "nowhere").returncode == 2
