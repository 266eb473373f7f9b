"""Every code block of the Markdown files is run, or has a reason in ``pages.py`` why it is not."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgesim.cli import main
from edgesim.errors import ConfigError
from tests.docs.blocks import PAGES, Block, blocks_of, indented
from tests.docs.pages import GENERATED, NOT_RUN, SERVERS, TEMPLATE
from tests.docs.shell import Shell
from tests.docs.story import Story
from tests.servers_nats import NatsServer
from tests.servers_s3 import seaweedfs
from tests.test_tidy import ROOT

COPIED = {"workers", "examples"}
"""Folders that commands write to; the rest of the repository is linked."""
SKIPPED = {".git", ".edgesim"}


@pytest.fixture
def server_ports(nats: NatsServer, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Ports of a NATS and an S3 server, by the ports that pages name."""
    folder = tmp_path / "weed"
    folder.mkdir()
    with seaweedfs(folder) as s3:
        yield {"4222": str(nats.port), "8333": s3.address.rpartition(":")[2]}


def _is_listed(block: Block) -> bool:
    return any(block.first_line.startswith(start) for start in NOT_RUN.get(block.page, ()))


def _runnable(page: str) -> list[Block]:
    if page in GENERATED:
        return []
    return [each for each in blocks_of(page) if not _is_listed(each)]


def _has_worker(page: str) -> bool:
    return any("(WorkerEntrypoint)" in block.text for block in _runnable(page))


@pytest.mark.timeout(600)  # minutes on a machine that is busy with other tests
@pytest.mark.parametrize(
    ("page", "isolation"),
    [
        *((page, None) for page in PAGES if _runnable(page)),
        *((page, "inline") for page in PAGES if _has_worker(page)),
    ],
)
def test_blocks(page: str, isolation: str | None, tmp_path: Path, request: pytest.FixtureRequest):
    """The blocks of a page run, in order, in one folder; shown output is what they print.

    Pages with a Worker in Python run at two levels: that of a reader (process), and inline.
    """
    ports = request.getfixturevalue("server_ports") if page in SERVERS else {}
    folder = tmp_path / "edgesim"
    if page in TEMPLATE:
        assert main(["init", str(folder)]) == 0
    else:
        _repository(folder)
    with Shell(folder, ports, isolation) as shell:
        story = Story(shell, tmp_path)
        for block in _runnable(page):
            try:
                story.run(block)
            except AssertionError as error:
                raise AssertionError(f"{page}:{block.line}: {error}") from error


def _repository(folder: Path) -> None:
    folder.mkdir()
    for entry in ROOT.iterdir():
        if entry.name in COPIED:
            shutil.copytree(entry, folder / entry.name, ignore=shutil.ignore_patterns(*SKIPPED))
        elif entry.name not in SKIPPED:
            (folder / entry.name).symlink_to(entry)


def test_no_reason_is_left_over():
    """Each entry of NOT_RUN is a block of its page, and says why."""
    unused = [
        (page, start)
        for page, reasons in NOT_RUN.items()
        for start in reasons
        if not any(block.first_line.startswith(start) for block in blocks_of(page))
    ]
    assert unused == []
    assert all(reason for reasons in NOT_RUN.values() for reason in reasons.values())


def test_pages_with_a_folder_of_their_own_exist():
    """Each page that is named in ``pages.py`` is there."""
    assert set(PAGES) >= TEMPLATE | SERVERS | GENERATED


@pytest.mark.parametrize("page", PAGES)
def test_blocks_have_a_language(page: str):
    """No code block is indented only, and each fence names its language."""
    assert indented(page) == []
    assert [each.line for each in blocks_of(page) if not each.language] == []


def test_a_block_that_nothing_runs_is_noticed(tmp_path: Path):
    """A Python block without a file, and text that is no output, are errors."""
    with Shell(tmp_path) as shell:
        story = Story(shell, tmp_path)
        for language in ("python", "text", "js", ""):
            with pytest.raises(AssertionError, match="no test runs"):
                story.run(Block("page.md", 1, language, "x = 1\n", "It is:"))


def test_output_that_differs_is_noticed(tmp_path: Path):
    """Text after "prints:" is compared with the output, ``...`` stands for any text."""
    folder = tmp_path / "here"
    folder.mkdir()
    with Shell(folder) as shell:
        story = Story(shell, tmp_path)
        story.run(Block("page.md", 1, "sh", "echo a 12 c\n", "Run:"))
        story.run(Block("page.md", 4, "text", "a ... c\n", "It prints:"))
        with pytest.raises(AssertionError, match="the page shows"):
            story.run(Block("page.md", 4, "text", "a ... d\n", "It prints:"))


def test_the_level_of_a_command(tmp_path: Path):
    """Commands that run Workers get the level, unless the page names one."""
    folder = tmp_path / "here"
    folder.mkdir()
    with Shell(folder, isolation="inline") as shell:
        shown = shell.run("echo edgesim replay a.jsonl; echo edgesim sql\n")
        assert shown == "edgesim replay --isolation inline a.jsonl\nedgesim sql\n"
        assert shell.run("echo edgesim replay --isolation warm\n").split()[-1] == "warm"


def test_a_command_that_fails_is_noticed(tmp_path: Path):
    """A shell block fails with its first command that fails."""
    folder = tmp_path / "here"
    folder.mkdir()
    with Shell(folder) as shell, pytest.raises(AssertionError, match="exit 1"):
        shell.run("false\ntrue\n")


def test_a_wrong_key_is_noticed(tmp_path: Path):
    """TOML that edgesim.toml does not take is an error."""
    with Shell(tmp_path) as shell, pytest.raises(ConfigError, match="bucketx"):
        Story(shell, tmp_path).run(Block("page.md", 1, "toml", "[pipelines.a]\nbucketx = 1\n", ""))
