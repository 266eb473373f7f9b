"""JavaScript Workers that do not start: one line with file, place and cure."""

import shutil
from pathlib import Path

import pytest

from edgesim.clock import Clock
from edgesim.config import Environment, load_project
from edgesim.config.wrangler import load_worker
from edgesim.errors import ConfigError, WorkerLoadError
from edgesim.isolates.javascript.driver import open_fresh, open_shared
from tests.javascript_world import programs, running, write_javascript
from tests.simulated import ask

pytestmark = pytest.mark.anyio
GOOD = "export default { fetch: () => new Response('ok') };"


@pytest.fixture(name="anyio_backend")
def one_loop():
    return "asyncio"


async def refusal(folder, source, *, main="src/index.ts", found=None, opener=open_shared, **keys):
    """Start one Worker, and return the error that refuses it."""
    write_javascript(folder, "main", source, main=main, **keys)
    config = load_worker(folder / "main")
    found = found or programs()
    config.workerd, config.esbuild = found.workerd, found.esbuild
    with pytest.raises((WorkerLoadError, ConfigError)) as caught:
        async with opener(config.spec(), Clock()):
            pass
    text = str(caught.value)
    assert "\n" not in text
    return text


async def test_a_syntax_error_names_file_and_line(tmp_path):
    """esbuild's first error, in one line."""
    said = await refusal(tmp_path, "export default {\n  fetch() { return 1 + }\n};")
    assert said == 'worker main: src/index.ts:2:23: Unexpected "}"'


async def test_a_missing_package_names_the_command(tmp_path):
    """An import that no node_modules resolves."""
    said = await refusal(tmp_path, 'import x from "@scope/none/sub";\nexport default { x };')
    assert said.startswith("worker main: src/index.ts:1:14: Could not resolve")
    assert "npm install @scope/none, in " in said


async def test_nodes_modules_need_the_flag(tmp_path):
    """node:* without nodejs_compat; with it the same module starts."""
    source = (
        'import path from "node:path";\nexport default { fetch: () => new Response(path.sep) };'
    )
    said = await refusal(tmp_path, source)
    assert "add the compatibility flag nodejs_compat" in said
    flags = ["nodejs_compat"]
    both = source.replace("node:path", "path")
    write_javascript(tmp_path, "main", both, main="src/index.ts", compatibility_flags=flags)
    async with running(tmp_path, "main") as simulator:
        assert await ask(simulator) == (200, b"/")


@pytest.mark.parametrize("opener", [open_shared, open_fresh])
async def test_an_exception_while_it_loads_names_its_place(tmp_path, opener):
    """Module code that throws."""
    said = await refusal(
        tmp_path, "\nconst x: any = null;\nx.y;\nexport default {};", opener=opener
    )
    assert said.startswith("worker main: src/index.ts:3:3: TypeError: ")


async def test_a_module_without_default_export(tmp_path):
    """The cure is in the line."""
    said = await refusal(tmp_path, "export const x = 1;")
    assert "has no default export" in said


async def test_a_date_that_workerd_does_not_know(tmp_path):
    """workerd's own words, and the command that installs a newer one."""
    said = await refusal(tmp_path, GOOD, compatibility_date="2999-01-01")
    assert "2999-01-01" in said
    assert "npm install --save-dev workerd@latest" in said


async def test_a_flag_that_workerd_does_not_know(tmp_path):
    """workerd's own words."""
    said = await refusal(tmp_path, GOOD, compatibility_flags=["no_such_flag"])
    assert said == "worker main: No such compatibility flag: no_such_flag"


async def test_no_workerd_at_all(tmp_path, monkeypatch):
    """The npm command, and the variable."""
    monkeypatch.setenv("PATH", "")
    said = await refusal(tmp_path, GOOD, found=Environment())
    assert "npm install --save-dev workerd esbuild" in said
    assert "EDGESIM_WORKERD" in said


async def test_a_variable_that_names_no_file(tmp_path):
    """The variable and the path."""
    said = await refusal(tmp_path, GOOD, found=Environment(workerd="/no/such/workerd"))
    assert said == "worker main: EDGESIM_WORKERD: there is no file '/no/such/workerd'"


async def test_a_workerd_that_crashes_at_start(tmp_path):
    """Its exit status, if it says nothing itself."""
    found = Environment(workerd=shutil.which("false"), esbuild=programs().esbuild)
    said = await refusal(tmp_path, GOOD, found=found)
    assert said == "worker main: workerd ended while it started (exit status 1)"


async def test_a_script_is_no_workerd(tmp_path):
    """npm's command without the native program beside it."""
    script = tmp_path / "workerd"
    script.write_text("#!/usr/bin/env node\n")
    said = await refusal(tmp_path, GOOD, found=Environment(workerd=str(script)))
    assert "is a script, not workerd's native program" in said


async def test_a_rule_with_a_glob_that_is_no_extension(tmp_path):
    """File and key."""
    rules = [{"type": "Text", "globs": ["docs/**"]}]
    said = await refusal(tmp_path, GOOD, rules=rules)
    assert "wrangler.json: rules[0].globs: " in said


def test_an_extension_that_is_no_workers(tmp_path):
    """The known ones are listed."""
    write_javascript(tmp_path, "main", "", main="index.rb")
    with pytest.raises(ConfigError, match=r"'index\.rb' is no module of a Worker \(.*\.ts"):
        load_worker(tmp_path / "main")


async def test_modules_of_other_kinds(tmp_path):
    """Text, JSON, data and packages of a node_modules are part of the Worker."""
    package = tmp_path / "main" / "node_modules" / "pack"
    package.mkdir(parents=True)
    (package / "package.json").write_text('{"name": "pack", "exports": "./x.js"}')
    (package / "x.js").write_text("export const n: number = 1;".replace(": number", ""))
    files = {"a.txt": b"text", "b.json": b'{"j": 2}', "c.bin": b"\x00\x01", "d.md": b"# md"}
    (tmp_path / "main" / "src").mkdir()
    for name, data in files.items():
        (tmp_path / "main" / "src" / name).write_bytes(data)
    source = """
    import { n } from "pack";
    import text from "./a.txt";
    import json from "./b.json";
    import data from "./c.bin";
    import md from "./d.md";
    export default {
      fetch: () => Response.json([n, text, json.j, [...new Uint8Array(data)], md, MARK]),
    };
    """
    rules = [{"type": "Text", "globs": ["**/*.md"], "fallthrough": True}]
    keys = {"rules": rules, "define": {"MARK": '"defined"'}}
    write_javascript(tmp_path, "main", source, main="src/index.mts", **keys)
    for level in ("process", "warm"):
        async with running(tmp_path, "main", isolation=level) as simulator:
            assert await ask(simulator) == (200, b'[1,"text",2,[0,1],"# md","defined"]')


async def test_a_missing_handler_is_a_configuration_error(tmp_path):
    """A queue consumer without a queue handler: file and key."""
    queues = {"consumers": [{"queue": "q"}]}
    write_javascript(tmp_path, "main", GOOD, queues=queues)
    with pytest.raises(ConfigError, match=r"queues\.consumers: index\.js has no `queue` handler"):
        async with running(tmp_path, "main"):
            pass


def test_a_python_worker_needs_neither_program(tmp_path):
    """A project in Python loads where nothing of npm is installed."""
    project = load_project(Path(__file__).parents[2] / "workers")
    assert all(worker.spec().javascript is None for worker in project.workers.values())


@pytest.mark.parametrize(
    "report", ["", "nonsense", '{"handlers": 5}', '{"error": ["a"]}', "[" * 5000]
)
async def test_a_forged_report_of_the_start_refuses_the_worker(tmp_path, report):
    """A module that replaces the isolate's first reply does not load; the error is one line."""
    source = f"Response.json = () => new Response({report!r});\n{GOOD}"
    said = await refusal(tmp_path, source)
    assert said.startswith("worker main: its isolate sent what none sends: ")
