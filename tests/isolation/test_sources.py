"""A Worker's files: the current version runs, guarded, and nothing is written beside them."""

import json
import os
import py_compile
from pathlib import Path

import pytest

from edgesim.jail import landlock
from tests.isolation.world import open_world
from tests.processes import dev, edgesim

pytestmark = pytest.mark.anyio

LEVELS = ["process", "warm", "inline"]
MAIN = """
import helper
from package import inner
from workers import Response, WorkerEntrypoint
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        import late
        return Response(" ".join([VERSION, helper.VERSION, inner.VERSION, late.VERSION]))
VERSION = "old"
"""
OWN = ("entry.py", "helper.py", "late.py", "package/__init__.py", "package/inner.py")


def write(folder: Path, version: str) -> None:
    """Write that version of every module, with the length and mtime of the previous version."""
    (folder / "package").mkdir(exist_ok=True)
    for name in OWN:
        source = MAIN if name == "entry.py" else 'VERSION = "old"\n'
        (folder / name).write_text(source.replace("old", version))
        os.utime(folder / name, (1_700_000_000, 1_700_000_000))


@pytest.mark.parametrize("level", LEVELS)
async def test_an_edit_within_the_second_is_seen(level, tmp_path):
    """Stale bytecode of a version with the same length and mtime is not used."""
    write(tmp_path, "old")
    for name in OWN:
        py_compile.compile(str(tmp_path / name), doraise=True)
    write(tmp_path, "new")
    async with open_world(level, tmp_path / "entry.py") as world:
        answer = await world.fetch("")
        assert answer.body == b"new new new new", answer.done


@pytest.mark.parametrize("level", ["process", "warm"])
async def test_vendored_packages_are_found(level, tmp_path):
    """Packages in python_modules beside the module or above its folder are importable."""
    (tmp_path / "src").mkdir()
    main = tmp_path / "src" / "entry.py"
    for folder, name in ((tmp_path, "above"), (tmp_path / "src", "beside")):
        package = folder / "python_modules" / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(f"NAME = {name!r}\n")
        py_compile.compile(str(package / "__init__.py"), doraise=True)
    main.write_text("""
import above, beside
from workers import Response, WorkerEntrypoint
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response(above.NAME + beside.NAME)
""")
    async with open_world(level, main) as world:
        assert (await world.fetch("")).body == b"abovebeside"


SHADOWED = """
try:
    FOUND = "read " + open("/etc/passwd").read()
except (PermissionError, RuntimeError):  # by the kernel, or while it is imported by the hook
    FOUND = "refused"
"""


@pytest.mark.parametrize("level", ["process", "warm"])
@pytest.mark.parametrize("name", ["resource", "pwd", "ssl", "heapq", "ctypes", "mmap"])
async def test_a_module_with_a_library_name_runs_guarded(level, name, tmp_path):
    """The zygote never imports a Worker's file that has the name of a library module."""
    (tmp_path / f"{name}.py").write_text(SHADOWED)
    main = tmp_path / "entry.py"
    main.write_text(f"""
import {name}
from workers import Response, WorkerEntrypoint
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response(getattr({name}, "FOUND", "the library's"))
""")
    async with open_world(level, main) as world:
        answer = await world.fetch("")
        assert answer.body in {b"refused", b"the library's"}, answer.done


READS = """
import os
from workers import Response, WorkerEntrypoint
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        await self.env.BUCKET.put("diary", "secret")
        found = []
        for folder, _, files in os.walk(os.path.dirname(__file__)):
            for file in files:
                try:
                    open(os.path.join(folder, file), "rb").close()
                except PermissionError:
                    continue
                found.append(os.path.relpath(os.path.join(folder, file), os.path.dirname(__file__)))
        return Response(" ".join(sorted(found)))
"""


@pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")
@pytest.mark.parametrize("state", ["kept", ".edgesim"])
@pytest.mark.parametrize("level", ["process", "warm"])
def test_the_state_in_a_workers_own_folder_is_hidden(level, state, tmp_path):
    """A Worker whose module lies in the project's folder reads its sources and nothing else."""
    (tmp_path / "entry.py").write_text(READS)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".dev.vars").write_text("TOKEN=secret")
    (tmp_path / "other" / "text.txt").write_text("text")
    settings = {
        "name": "w",
        "main": "entry.py",
        "compatibility_date": "2026-10-01",
        "compatibility_flags": ["python_workers"],
        "r2_buckets": [{"binding": "BUCKET", "bucket_name": "diaries"}],
    }
    (tmp_path / "wrangler.jsonc").write_text(json.dumps(settings))
    with dev(tmp_path, tmp_path / state, "--isolation", level) as running:
        assert running.request() == (200, b"entry.py other/text.txt wrangler.jsonc")
        assert running.stop() == 0


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the Worker above."""
    worker = tmp_path / "project" / "w"
    worker.mkdir(parents=True)
    write(worker, "new")
    settings = {"name": "w", "main": "entry.py", "compatibility_flags": ["python_workers"]}
    (worker / "wrangler.jsonc").write_text(
        json.dumps(settings | {"compatibility_date": "2026-10-01"})
    )
    (worker.parent / "edgesim.toml").write_text('workers = ["w"]\n')
    return worker.parent


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_is_written_beside_sources(level, project, tmp_path, monkeypatch):
    """dev, replay and check leave the project's folder as it was."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    fixture = tmp_path / "one.ndjson"
    fixture.write_text("{}\n")
    before = sorted(project.rglob("*"))
    isolation = ("--isolation", level)
    with dev(project, tmp_path / "state", *isolation) as running:
        assert running.request() == (200, b"new new new new")
        assert running.stop() == 0
    replayed = edgesim("replay", fixture, "--project", project, *isolation)
    assert replayed.returncode == 0, replayed.stderr
    assert edgesim("check", project).returncode == 0
    found = [path for path in sorted(project.rglob("*")) if ".edgesim" not in path.parts]
    assert found == before
