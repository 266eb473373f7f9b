"""``export cloudflare`` of Workers in JavaScript: they are copied as they are."""

import subprocess
from pathlib import Path

from edgesim.config import load_project
from edgesim.export import export_cloudflare

ROOT = Path(__file__).parents[2]


def test_workers_in_typescript_are_copied_as_they_are(tmp_path):
    """Same modules and wrangler files, nothing of Python's tools, and wrangler deploys them."""
    project = ROOT / "examples" / "javascript"
    out = tmp_path / "out"
    export_cloudflare(load_project(project), out)
    for name in ("receiver", "tail", "insert", "large-payload", "dead-letter"):
        for file in (project / name).rglob("*.ts"):
            assert (out / name / file.relative_to(project / name)).read_text() == file.read_text()
        assert (out / name / "wrangler.jsonc").is_file()
    assert not list(out.rglob("pyproject.toml"))
    assert 'wrangler deploy "$@"' in (out / "setup.sh").read_text()
    subprocess.run(["sh", "-n", str(out / "setup.sh")], check=True)


def test_a_mixed_project_has_both_tools(tmp_path):
    """A pyproject.toml for the Workers in Python alone."""
    export_cloudflare(load_project(ROOT / "examples" / "mixed"), tmp_path)
    assert (tmp_path / "receiver" / "pyproject.toml").is_file()
    assert not (tmp_path / "tail" / "pyproject.toml").exists()
