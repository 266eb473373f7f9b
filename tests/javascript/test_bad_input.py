"""JavaScript Workers that do not start: one line with file, place and cure."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

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
    (tmp_path / "main" / "src").mkdir()
    wasm = b"\0asm\1\0\0\0\1\5\1\x60\0\1\x7f\3\2\1\0\7\5\1\1f\0\0\x0a\6\1\4\0\x41\x2a\x0b"
    files = {
        "w.wasm": wasm,
        "a.txt": b"text",
        "b.json": b'{"j": 2}',
        "c.bin": b"\x00\x01",
        "d.md": b"# md",
    }
    for name, data in files.items():
        (tmp_path / "main" / "src" / name).write_bytes(data)
    source = """
    import { n } from "pack";
    import text from "./a.txt";
    import json from "./b.json";
    import data from "./c.bin";
    import md from "./d.md";
    import wasm from "./w.wasm";
    export default {
      fetch: () => Response.json([n, text, json.j, [...new Uint8Array(data)], md, MARK,
        new WebAssembly.Instance(wasm).exports.f()]),
    };
    """
    rules = [{"type": "Text", "globs": ["**/*.md"], "fallthrough": True}]
    keys = {"rules": rules, "define": {"MARK": '"defined"'}}
    write_javascript(tmp_path, "main", source, main="src/index.mts", **keys)
    for level in ("process", "warm"):
        async with running(tmp_path, "main", isolation=level) as simulator:
            assert await ask(simulator) == (200, b'[1,"text",2,[0,1],"# md","defined",42]')


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


async def test_a_module_cannot_forge_the_report_of_its_start(tmp_path):
    """Functions of JavaScript that it replaces are not those that the report is made with."""
    source = """
    const forged = () => new Response('{"handlers": 5}');
    Response.json = forged;
    JSON.stringify = () => "nonsense";
    Object.keys = Array.prototype.filter = () => ["forged"];
    export default { fetch: () => new Response("ok") };
    """
    write_javascript(tmp_path, "main", source)
    async with running(tmp_path, "main") as simulator:
        assert await ask(simulator) == (200, b"ok")


async def test_a_json_module_with_a_syntax_error(tmp_path):
    """The place is in the JSON file."""
    write_javascript(tmp_path, "main", "")
    (tmp_path / "main" / "src").mkdir()
    (tmp_path / "main" / "src" / "d.json").write_text('{"a": 1,\n "b" 2}\n')
    said = await refusal(tmp_path, 'import d from "./d.json";\nexport default { d };')
    assert said.startswith("worker main: src/d.json:2:5: Expected")


async def test_a_typescript_syntax_error(tmp_path):
    """Types are read as TypeScript reads them."""
    said = await refusal(tmp_path, "interface A { x: number\nexport default {};")
    assert said.startswith("worker main: src/index.ts:2:")


async def test_a_workerd_that_is_not_executable(tmp_path):
    """The file, and why it does not run."""
    file = tmp_path / "workerd"
    file.write_bytes(b"\x7fELF")
    said = await refusal(
        tmp_path, GOOD, found=Environment(workerd=str(file), esbuild=programs().esbuild)
    )
    assert said == f"worker main: cannot run {file}: Permission denied"


async def test_an_esbuild_that_is_no_program(tmp_path):
    """The same for esbuild, of a wrong format."""
    file = tmp_path / "esbuild"
    file.write_bytes(b"no program")
    file.chmod(0o755)
    said = await refusal(
        tmp_path, GOOD, found=Environment(workerd=programs().workerd, esbuild=str(file))
    )
    assert said == f"worker main: cannot run {file}: Exec format error"


HANDLERS = [
    ({"queues": {"consumers": [{"queue": "q"}]}}, "queues.consumers", "queue"),
    ({"triggers": {"crons": ["* * * * *"]}}, "triggers.crons", "scheduled"),
]


@pytest.mark.parametrize(("keys", "key", "handler"), HANDLERS)
async def test_a_missing_handler_names_file_and_key(tmp_path, keys, key, handler):
    """Each event that the wrangler file asks for needs a handler."""
    write_javascript(tmp_path, "main", GOOD, **keys)
    with pytest.raises(ConfigError) as caught:
        async with running(tmp_path, "main"):
            pass
    said = str(caught.value)
    assert f"main/wrangler.json: {key}: index.js has no `{handler}` handler" in said


async def test_a_tail_consumer_without_a_handler(tmp_path):
    """The key is the producer's."""
    write_javascript(tmp_path, "main", GOOD, tail_consumers=[{"service": "seen"}])
    write_javascript(tmp_path, "seen", GOOD)
    with pytest.raises(ConfigError) as caught:
        async with running(tmp_path, "main", "seen"):
            pass
    said = str(caught.value)
    assert "main/wrangler.json: tail_consumers[0].service: " in said
    assert "seen/index.js has no `tail` handler in its default export" in said


@pytest.mark.parametrize("source", ["", "export const Named = {};", "export function Named() {}"])
async def test_an_entrypoint_that_is_no_class(tmp_path, source):
    """A service binding names an entrypoint that the module does not have as a class."""
    services = [{"binding": "S", "service": "other", "entrypoint": "Named"}]
    write_javascript(tmp_path, "main", GOOD, services=services)
    write_javascript(tmp_path, "other", source + "\n" + GOOD)
    with pytest.raises(ConfigError) as caught:
        async with running(tmp_path, "main", "other"):
            pass
    said = str(caught.value)
    assert "main/wrangler.json: services" in said
    assert "Named" in said


def test_a_main_that_does_not_exist(tmp_path):
    """File and key."""
    write_javascript(tmp_path, "main", GOOD)
    (tmp_path / "main" / "index.js").unlink()
    with pytest.raises(ConfigError, match=r"main/wrangler\.json: main: .*index\.js"):
        load_worker(tmp_path / "main")


BROKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "syntax": ("export default {", {}),
    "throws": ("null.x;\nexport default {};", {}),
    "date": (GOOD, {"compatibility_date": "2999-01-01"}),
    "handler": (GOOD, {"triggers": {"crons": ["* * * * *"]}}),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_the_command_ends_with_one_line_and_status_2(tmp_path, kind):
    """`edgesim dev` names the Worker that does not start; nothing else is printed."""
    source, keys = BROKEN[kind]
    write_javascript(tmp_path, "good", GOOD)
    write_javascript(tmp_path, "bad", source, **keys)
    (tmp_path / "edgesim.toml").write_text(
        'workers = ["good", "bad"]\n[backends]\nr2 = "memory:"\nqueues = "memory:"\n'
    )
    found = programs()
    variables = {"EDGESIM_WORKERD": str(found.workerd), "EDGESIM_ESBUILD": str(found.esbuild)}
    finished = subprocess.run(
        [
            *(sys.executable, "-m", "edgesim.cli", "dev", str(tmp_path), "--port", "0"),
            *("--state", str(tmp_path / "state"), "--no-reload"),
        ],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert finished.returncode == 2, finished.stderr
    assert finished.stdout == ""
    (line,) = [each for each in finished.stderr.splitlines() if not each.startswith("20")]
    assert line.startswith("edgesim: ")
    assert "bad" in line
