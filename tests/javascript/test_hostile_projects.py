"""Projects from elsewhere: what a JavaScript Worker's files name is neither run nor read."""

import json
import os
from pathlib import Path

import pytest

from edgesim.errors import WorkerLoadError
from tests.javascript_world import programs, running, write_javascript
from tests.processes import dev, edgesim
from tests.simulated import ask

pytestmark = pytest.mark.anyio

ECHO = (
    "import found from {0!r};\nexport default {{ fetch() {{ return Response.json(found); }} }};\n"
)


@pytest.fixture
def anyio_backend():
    return "asyncio"


def secret(folder: Path, name: str) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('{"secret": 1}')
    return file


async def test_files_outside_of_the_project_are_not_bundled(tmp_path):
    """An absolute path, a relative one, a link, tsconfig's paths and another one's package.json."""
    project = tmp_path / "project"
    outside = secret(tmp_path, "elsewhere/secret.json")
    ways = {
        "absolute": str(outside),
        "relative": "../../elsewhere/secret.json",
        "link": "./link.json",
        "alias": "aliased",
        "package": "../../elsewhere",
    }
    (tmp_path / "elsewhere" / "package.json").write_text('{"main": "secret.json"}')
    for way, name in ways.items():
        write_javascript(project, "main", ECHO.format(name))
        worker = project / "main"
        (worker / "link.json").unlink(missing_ok=True)
        (worker / "link.json").symlink_to(outside)
        paths = {"compilerOptions": {"paths": {"aliased": [str(outside)]}}}
        (worker / "tsconfig.json").write_text(json.dumps(paths))
        with pytest.raises(WorkerLoadError, match=r"secret\.json, which is not in") as failed:
            async with running(project, "main"):
                pass
        assert "\n" not in str(failed.value), way


async def test_hidden_files_of_the_project_are_not_bundled(tmp_path):
    """As for Python Workers, names that begin with a dot are out of reach."""
    secret(tmp_path, "main/.secrets/key.json")
    write_javascript(tmp_path, "main", ECHO.format("./.secrets/key.json"))
    with pytest.raises(WorkerLoadError, match="begin with a dot are hidden"):
        async with running(tmp_path, "main"):
            pass


async def test_files_of_the_repository_and_of_packages_are(tmp_path):
    """A sibling package, one in node_modules above, and one that is a link, as in workspaces."""
    (tmp_path / ".git").mkdir()
    secret(tmp_path, "packages/shared/data.json")
    secret(tmp_path, "node_modules/.pnpm/data@1/node_modules/data/data.json")
    (tmp_path / "node_modules" / "linked").symlink_to(tmp_path / "packages" / "shared")
    project = tmp_path / "apps" / "edge"
    for name in (
        "../../../packages/shared/data.json",
        "linked/data.json",
        "../../../node_modules/.pnpm/data@1/node_modules/data/data.json",
    ):
        write_javascript(project, "main", ECHO.format(name))
        async with running(project, "main") as simulator:
            assert await ask(simulator) == (200, b'{"secret":1}')


def test_no_code_of_the_project_runs_with_the_users_rights(tmp_path, monkeypatch):
    """Scripts, plugins, and variables that name programs or libraries have no effect."""
    found = programs()
    monkeypatch.setenv("EDGESIM_WORKERD", str(found.workerd))
    monkeypatch.setenv("EDGESIM_ESBUILD", str(found.esbuild))
    ran = tmp_path / "ran"
    touch = f"touch {ran}"
    folder = tmp_path / "project"
    source = "export default { fetch(_, env) { return Response.json(env); } };"
    write_javascript(folder, "main", source, build={"command": touch})
    (folder / "edgesim.toml").write_text('workers = ["main"]\n')
    worker, bins = folder / "main", tmp_path / "bin"
    bins.mkdir()
    for name in ("esbuild", "workerd", "node", "python3", "sh"):
        (bins / name).write_text(f"#!/bins/sh\n{touch}\n")
        (bins / name).chmod(0o755)
    for place in (bins, folder, worker):
        for module in ("sitecustomize", "usercustomize", "edgesim", "structlog"):
            (place / f"{module}.py").write_text(f"open({str(ran)!r}, 'w')\n")
    scripts = dict.fromkeys(("preinstall", "prepare", "prebuild", "build", "dev", "start"), touch)
    package = {
        "name": "main",
        "type": "module",
        "scripts": scripts,
        "main": str(bins / "node"),
    }
    plugins = {"compilerOptions": {"plugins": [{"name": str(bins / "plugin.js")}]}}
    (bins / "plugin.js").write_text(f"require('fs').writeFileSync({str(ran)!r}, '')")
    (worker / "package.json").write_text(json.dumps(package))
    (worker / "tsconfig.json").write_text(json.dumps(plugins))
    (worker / "esbuild.config.js").write_text((bins / "plugin.js").read_text())
    variables = {
        "NODE_OPTIONS": f"--require={bins / 'plugin.js'}",
        "LD_PRELOAD": str(bins / "evil.so"),
        "LD_LIBRARY_PATH": str(bins),
        "PATH": str(bins),
        "PYTHONPATH": str(bins),
        "PYTHONSTARTUP": str(bins / "sitecustomize.py"),
        "ESBUILD_BINARY_PATH": str(bins / "esbuild"),
        "EDGESIM_WORKERD": str(bins / "workerd"),
        "EDGESIM_ESBUILD": str(bins / "esbuild"),
        "EDGESIM_ADMIN_TOKEN": "guessed",
        "TMPDIR": str(bins),
    }
    text = "".join(f"{name}={value}\n" for name, value in variables.items())
    (worker / ".dev.vars").write_text(text)
    for place in (folder / ".env", worker / ".env", folder / ".dev.vars"):
        place.write_text(text)
    monkeypatch.chdir(folder)
    assert "Traceback" not in edgesim("check", folder).stderr
    with dev(folder, tmp_path / "state", "--no-reload") as started:
        shown = json.loads(started.request(method="GET")[1])
        assert {name: shown[name] for name in variables} == variables  # the Worker's own
        children = Path(f"/proc/{started.process.pid}/task").glob("*/children")
        pids = [pid for each in children for pid in each.read_text().split()]
        for pid in pids:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            assert os.fsencode(bins) not in environment
        assert started.stats()  # without the token
        assert started.stop() == 0
    assert not ran.exists()
    assert sorted(each.name for each in bins.iterdir() if each.suffix not in {".py", ".js"}) == [
        *("esbuild", "node", "python3", "sh", "workerd")
    ]
