"""The files beside a Worker's module that its code may read."""

import pytest

from edgesim.isolates.guest.own_files import FOLDERS_MAX, readable


@pytest.fixture
def project(tmp_path):
    for path in ("main.py", "lib/part.py", "lib/data/x.json", "site/deep/page.html"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("text")
    return tmp_path


def granted(project, *hidden):
    """The granted paths, from the project's folder on."""
    paths = readable(str(project), [str(project / each) for each in hidden])
    return {path.removeprefix(f"{project.resolve()}/") for path in paths}


def test_a_folder_without_anything_hidden_is_granted_whole(project):
    """One grant is enough where nothing is hidden; files made later are readable too."""
    assert readable(str(project), []) == [str(project.resolve())]


@pytest.mark.parametrize(
    "secret", [".dev.vars", ".env.production", ".edgesim/owner.json", ".git/config"]
)
def test_names_with_a_dot_are_not_granted(project, secret):
    """A hidden entry of the folder divides the folder: its other entries are granted."""
    (project / secret).parent.mkdir(exist_ok=True)
    (project / secret).write_text("secret")
    assert granted(project) == {"main.py", "lib", "site"}


def test_a_hidden_entry_further_down_divides_each_folder_above_it(project):
    """Another Worker's secrets in a folder below are hidden, its other files are not."""
    (project / "site" / "deep" / ".dev.vars").write_text("secret")
    assert granted(project) == {"main.py", "lib", "site/deep/page.html"}


def test_named_paths_and_their_companions_are_not_granted(project):
    """The state directory and a database with its log are hidden whatever their names are."""
    (project / "state").mkdir()
    for name in ("queue.db", "queue.db-wal", "queue.dbx"):
        (project / name).write_text("messages")
    assert granted(project, "state", "queue.db") == {"main.py", "lib", "site", "queue.dbx"}


def test_a_symbolic_link_grants_nothing(project, tmp_path_factory):
    """A link to a file outside, or to a hidden one, is not followed."""
    outside = tmp_path_factory.mktemp("outside") / "diary"
    outside.write_text("secret")
    (project / ".env").write_text("secret")
    (project / "link").symlink_to(outside)
    (project / "other").symlink_to(project / ".env")
    assert granted(project) == {"main.py", "lib", "site"}


def test_the_search_has_an_end(project):
    """Of more folders than the limit, those that are not looked into are not granted."""
    for number in range(FOLDERS_MAX + 5):
        (project / "site" / f"f{number}").mkdir()
    found = granted(project)
    assert {"main.py", "lib"} <= found
    assert len(found) < FOLDERS_MAX + 5
    assert "site" not in found
