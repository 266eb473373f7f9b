"""The built wheel in an empty virtual environment, used as the documentation says.

`make test` runs this for its own Python, `make wheel` for every version that is here. The commands
are those of docs/how-to/install.md and of the CI file of a new project, word for word.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import ROOT, dev

pytestmark = pytest.mark.timeout(400)  # it installs 600 MB

INSTALL = ROOT / "docs" / "how-to" / "install.md"
TYPED = Path(__file__).parent / "typed_project.py"
HEAVY = {"pandas", "pyarrow", "numpy"}
BASE = f"{sys.version_info.major}.{sys.version_info.minor}"
VERSIONS = os.environ.get("WHEEL_PYTHONS", BASE).split()
UNREACHABLE = ("NewConnectionError", "Temporary failure in name resolution", "ReadTimeoutError")


def interpreter(version: str) -> str:
    """The Python of that version; skips if it is not here."""
    if version == BASE:
        return sys.executable
    candidates = [f"python{version}", *Path.home().glob(f".pyenv/versions/{version}.*/bin/python")]
    for each in map(str, candidates):
        found = shutil.which(each)
        if (
            found
            and not subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode
        ):
            return found
    pytest.skip(f"Python {version} is not here")


def blocks(page: Path) -> list[str]:
    """The shell blocks of a page, in order."""
    return re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)


class Installation:
    """A virtual environment without access to this checkout."""

    def __init__(self, folder: Path, python: str, wheel: Path) -> None:
        self.folder = folder
        self.refused_without_engine: subprocess.CompletedProcess[str] | None = None
        self.bin = folder / ".venv" / "bin"
        named = folder / "python"
        named.mkdir()
        (named / "python3").symlink_to(python)
        constraint = folder / "constraint.txt"
        constraint.write_text(f"edgesim @ {wheel.as_uri()}\n")
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
        } | {
            "PATH": f"{self.bin}:{named}:{os.environ['PATH']}",
            "PIP_CONSTRAINT": str(constraint),  # `pip install edgesim` is this wheel
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def run(self, script: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a shell script that stops at the first error."""
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=cwd or self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def works(self, script: str, cwd: Path | None = None) -> str:
        """Run a script that must succeed, and return its output."""
        done = self.run(script, cwd)
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def install(self, script: str) -> None:
        """Run a script that installs; without a package index skip, or fail if CI=true."""
        done = self.run(script)
        if done.returncode and any(each in done.stderr for each in UNREACHABLE):
            if os.environ.get("CI") == "true":
                pytest.fail(done.stderr)
            pytest.skip("the package index cannot be reached")
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]
    subprocess.run([*pip, str(folder), str(ROOT)], check=True)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module", params=VERSIONS)
def installed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, wheel: Path
) -> Iterator[Installation]:
    """The package and the engine, with a new project in `my-pipeline`."""
    folder = tmp_path_factory.mktemp(f"wheel-{request.param}")
    installation = Installation(folder, interpreter(request.param), wheel)
    package, engine, *_ = blocks(INSTALL)
    installation.install(package)
    installation.works("edgesim init my-pipeline")
    refused = installation.run("edgesim dev --port 0", folder / "my-pipeline")
    installation.install(engine)
    installation.refused_without_engine = refused
    yield installation
    shutil.rmtree(folder)


def test_without_the_engine_the_start_is_refused(installed):
    """`edgesim dev` names the command that installs the engine, before any event arrives."""
    refused, engine = installed.refused_without_engine, blocks(INSTALL)[1].strip()
    assert refused.returncode == 2
    assert refused.stderr.startswith("edgesim: ")
    problem = "the embedded ClickHouse engine is not installed"
    assert f"edgesim.toml: backends.clickhouse: {problem}; {engine}" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_the_wheel_is_used_and_nothing_heavy_is_installed(installed):
    """edgesim is imported from the environment, and no data-frame package came along."""
    place = installed.works("cd / && python -c 'import edgesim; print(edgesim.__file__)'")
    assert place.startswith(f"{installed.folder}/.venv/lib/")
    listed = installed.works("pip list --format freeze")
    names = {line.partition("==")[0].lower() for line in listed.splitlines()}
    assert {"edgesim", "chdb-core"} <= names
    assert names.isdisjoint(HEAVY)


def test_the_page_goes_on_as_it_says(installed):
    """The version is that of pyproject.toml, and the doctor finds no problem in a new project."""
    assert blocks(INSTALL)[2].splitlines() == [
        "edgesim --version",
        "edgesim init my-pipeline",
        "cd my-pipeline",
        "edgesim doctor",
    ]
    [version] = re.findall(
        r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert installed.works("edgesim --version") == f"edgesim {version}\n"
    said = installed.works("edgesim doctor", installed.folder / "my-pipeline")
    assert "clickhouse: version" in said


def test_an_event_becomes_a_row(installed, tmp_path):
    """`edgesim dev` of the wheel takes an event, and its row is in ClickHouse."""
    project = installed.folder / "my-pipeline"
    with dev(project, tmp_path / "state", program=[installed.bin / "edgesim"]) as running:
        assert running.post({"event": "login", "user": 7}) == 200
        running.drain()
        assert running.sql("SELECT event, data FROM events") == [
            {"event": "login", "data": '{"user": 7}'}
        ]
        assert running.stop() == 0


def test_the_ci_file_passes(installed):
    """Each command of the project's CI file succeeds, its tests among them."""
    project = installed.folder / "my-pipeline"
    commands = re.findall(r"- run: (.*)", (project / ".github/workflows/ci.yml").read_text())
    assert [each.split()[0] for each in commands] == ["pip", "pip", "edgesim", "pytest"]
    for command in commands:
        said = installed.works(command, project)
    assert re.search(r"\d+ passed", said)


def test_types_reach_editors_and_checkers(installed, tmp_path):
    """mypy finds the SDK and the fixture's types, and reports exactly the lines that are wrong."""
    source = TYPED.read_text()
    file = tmp_path / "typed_project.py"
    file.write_text(source)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--no-incremental"]
    done = subprocess.run(
        [*mypy, "--python-executable", str(installed.bin / "python"), str(file)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    expected = {
        (number, found[1])
        for number, line in enumerate(source.splitlines(), 1)
        if (found := re.search(r"# error: ([\w-]+)$", line))
    }
    line_of_error = re.compile(r"typed_project\.py:(\d+): error: .*\[([\w-]+)\]$", re.MULTILINE)
    reported = line_of_error.findall(done.stdout)
    assert {(int(number), code) for number, code in reported} == expected, done.stdout


def test_a_driver_of_another_package_is_installed(installed):
    """examples/driver is built and installed by pip, and the doctor uses it."""
    installed.works(f"pip install --quiet --no-deps {ROOT / 'examples' / 'driver'}")
    said = installed.works("edgesim doctor --queues heap:", installed.folder / "my-pipeline")
    assert "heap:: a message went there and came back" in said


def test_the_engine_has_one_requirement():
    """All commands that install the engine ask for the version of pyproject.toml."""
    files = ["Makefile", "pyproject.toml", "docs/how-to/install.md"]
    files += ["edgesim/clickhouse/chdb/driver.py"]
    for language in ("template", "template_typescript"):
        files += [f"edgesim/{language}/README.md.tmpl"]
        files += [f"edgesim/{language}/github/workflows/ci.yml.tmpl"]
    found = {
        name: set(re.findall(r"chdb-core[^'\"\s]*\d[\d.]*", (ROOT / name).read_text()))
        for name in files
    }
    assert len(set.union(*found.values())) == 1, found
    assert all(found.values())
