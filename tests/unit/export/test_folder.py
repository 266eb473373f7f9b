"""The export writes below its folder only, and copies from the Workers' folders only."""

from pathlib import Path

import pytest

from edgesim.config.loading import load_project
from edgesim.errors import ConfigError, UsageError
from edgesim.export import export_cloudflare
from tests.simulated import write_worker

WORKER = """
class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response("ok")
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    write_worker(folder, "only", WORKER)
    (folder / "edgesim.toml").write_text('workers = ["only"]\n')
    return folder


@pytest.mark.parametrize("link", ["only", "only/wrangler.json", "NOTES.md", "made"])
def test_links_in_an_earlier_export_are_refused(root: Path, tmp_path: Path, link: str) -> None:
    """A project that has such a folder would choose the files that the export overwrites."""
    out, victim = tmp_path / "out", tmp_path / "victim"
    export_cloudflare(load_project(root), out)
    victim.write_text("keep")
    path = out / link
    if path.is_dir():
        path.rename(tmp_path / "moved")
    path.unlink(missing_ok=True)
    path.symlink_to(victim)
    with pytest.raises(UsageError, match="is a symbolic link"):
        export_cloudflare(load_project(root), out)
    assert victim.read_text() == "keep"


def test_a_folder_that_is_a_link_is_refused(root: Path, tmp_path: Path) -> None:
    """The default folder may belong to the project too."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="is a symbolic link"):
        export_cloudflare(load_project(root), tmp_path / "out")
    assert not any((tmp_path / "elsewhere").iterdir())


def test_links_that_lead_out_of_a_worker_are_not_copied(root: Path, tmp_path: Path) -> None:
    """A link to a file of the Worker is copied; one to a secret or another folder is not."""
    worker, out = root / "only", tmp_path / "out"
    (tmp_path / "private.txt").write_text("private")
    (worker / ".dev.vars").write_text("TOKEN=private")
    (worker / "data.txt").write_text("data")
    (worker / "same.txt").symlink_to("data.txt")
    (worker / "vars.txt").symlink_to(".dev.vars")
    (worker / "out.txt").symlink_to(tmp_path / "private.txt")
    (worker / "folder").symlink_to(tmp_path)
    export_cloudflare(load_project(root), out)
    assert (out / "only" / "same.txt").read_text() == "data"
    texts = [each.read_text() for each in out.rglob("*") if each.is_file()]
    assert not any("private" in text for text in texts)


@pytest.mark.parametrize("name", ["../../out", "/tmp/x", "a b", "", "."])
def test_the_gateway_has_the_name_of_a_service(root: Path, name: str) -> None:
    """It names a folder of the export."""
    with (root / "edgesim.toml").open("a") as file:
        file.write(f'[clickhouse]\nservice = "{name}"\n')
    with pytest.raises(ConfigError, match=r"clickhouse\.service"):
        load_project(root)
