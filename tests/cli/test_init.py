"""``edgesim init``: create a pipeline that runs."""

import subprocess
import sys

from tests.javascript_world import programs
from tests.processes import edgesim


def test_a_new_project_checks_and_passes_its_own_tests(tmp_path):
    """The new project passes ``edgesim check`` without a warning, and its tests run the chain."""
    folder = tmp_path / "new"
    made = edgesim("init", folder)
    assert made.returncode == 0, made.stderr
    checked = edgesim("check", folder)
    assert (checked.returncode, checked.stdout) == (0, "")
    assert (folder / ".github" / "workflows" / "ci.yml").is_file()
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout


def test_the_tests_of_a_new_project_find_what_its_worker_imports(tmp_path):
    """A module beside the receiver and a vendored package are importable in its own tests."""
    folder = tmp_path / "new"
    assert edgesim("init", folder).returncode == 0
    receiver = folder / "receiver"
    (receiver / "python_modules").mkdir()
    (receiver / "python_modules" / "vendored_names.py").write_text("NAME = 'event'\n")
    (receiver / "own_names.py").write_text("from vendored_names import NAME\n")
    source = (receiver / "receiver.py").read_text()
    changed = source.replace('event.pop("event", None)', "event.pop(own_names.NAME, None)")
    (receiver / "receiver.py").write_text(
        changed.replace("import json", "import json\nimport own_names", 1)
    )
    assert changed != source
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_a_new_project_in_typescript_runs_the_chain(tmp_path, monkeypatch):
    """It has no Python, passes ``edgesim check`` without a warning, and its replay passes."""
    found = programs()
    monkeypatch.setenv("EDGESIM_WORKERD", str(found.workerd))
    monkeypatch.setenv("EDGESIM_ESBUILD", str(found.esbuild))
    folder = tmp_path / "new"
    made = edgesim("init", folder, "--language", "typescript")
    assert made.returncode == 0, made.stderr
    assert "npm install && edgesim dev" in made.stdout
    assert not list(folder.rglob("*.py"))
    checked = edgesim("check", folder)
    assert (checked.returncode, checked.stdout) == (0, "")
    tests = folder / "tests"
    replayed = edgesim(
        *("replay", tests / "events.ndjson", "--project", folder),
        *("--expect", tests / "expected.toml"),
    )
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr


def test_nothing_is_overwritten(tmp_path):
    """A folder that contains one of its files is not changed."""
    (tmp_path / "schema.sql").write_text("mine")
    refused = edgesim("init", tmp_path)
    assert refused.returncode == 2
    assert "schema.sql exists already" in refused.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["schema.sql"]


def test_symbolic_links_are_not_followed(tmp_path):
    """A link in the folder, also one to nothing, does not lead the files out of it."""
    folder, outside = tmp_path / "new", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    for name, target in ((".gitignore", outside / "made"), ("receiver", outside)):
        (folder / name).symlink_to(target)
        refused = edgesim("init", folder)
        assert refused.returncode == 2
        assert f"{name}" in refused.stderr
        assert "exists already" in refused.stderr
        (folder / name).unlink()
    assert not any(outside.iterdir())
