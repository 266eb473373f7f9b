"""Workflows, issue forms, hooks and the deployment example are valid by their own linters."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.variables import known_variables
from tests.test_tidy import ROOT

BIN = Path(sys.executable).parent
DEPLOY = ROOT / "examples" / "deploy"
SCHEMAS = {
    ".github/workflows/ci.yml": "vendor.github-workflows",
    ".github/workflows/release.yml": "vendor.github-workflows",
    ".github/ISSUE_TEMPLATE/bug.yml": "vendor.github-issue-forms",
    ".github/ISSUE_TEMPLATE/difference.yml": "vendor.github-issue-forms",
    ".github/ISSUE_TEMPLATE/config.yml": "vendor.github-issue-config",
    "examples/deploy/compose.yaml": "vendor.compose-spec",
}


def _run(*command: object) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", SCHEMAS)
def test_files_match_their_schema(file: str):
    """Workflows, issue forms and the compose file have the keys that their readers know."""
    _run(BIN / "check-jsonschema", "--builtin-schema", SCHEMAS[file], ROOT / file)


def test_every_file_for_github_has_a_schema():
    """No YAML file under .github is left unchecked."""
    found = {str(file.relative_to(ROOT)) for file in (ROOT / ".github").rglob("*.yml")}
    assert found == {name for name in SCHEMAS if name.startswith(".github/")}


def test_pre_commit_hooks_are_valid():
    """pre-commit accepts its configuration."""
    _run(BIN / "pre-commit", "validate-config", ROOT / ".pre-commit-config.yaml")


@pytest.mark.parametrize(
    "file", [*sorted((ROOT / ".github/workflows").iterdir()), ROOT / "CONTRIBUTING.md"]
)
def test_targets_of_make_exist(file: Path):
    """Each `make TARGET` that a workflow or CONTRIBUTING.md names is in the Makefile."""
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`|run: )make ([\w-]+)", file.read_text(), re.MULTILINE))
    assert named <= targets


def test_the_dockerfile_passes_its_linter():
    """hadolint finds nothing in the Dockerfile."""
    hadolint = shutil.which("hadolint", path=str(BIN))
    if hadolint is None:
        pytest.skip("no hadolint wheel for this system")
    _run(hadolint, DEPLOY / "Dockerfile")


def test_the_service_unit_is_valid(tmp_path: Path):
    """systemd-analyze accepts the unit, with a program that exists on this machine."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze here")
    unit = (DEPLOY / "edgesim.service").read_text()
    unit = unit.replace("/opt/edgesim/bin/edgesim", str(BIN / "edgesim"))
    (tmp_path / "edgesim.service").write_text(unit)
    _run(analyze, "verify", "--man=no", tmp_path / "edgesim.service")


@pytest.mark.parametrize("name", ["edgesim.env", "compose.yaml"])
def test_variables_of_the_example_are_known(name: str):
    """Each EDGESIM_ variable of the deployment example is one that edgesim reads."""
    named = set(re.findall(r"EDGESIM_\w+", (DEPLOY / name).read_text()))
    assert named
    assert named <= known_variables()
