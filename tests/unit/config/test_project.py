"""Loading edgesim.toml and the project."""

from pathlib import Path

import pytest

from edgesim.config import Environment, load_project
from edgesim.config.loading import find_root
from edgesim.config.project import Overrides
from edgesim.errors import ConfigError, UsageError

ACCOUNT = 'workers = ["a"]\n[pipelines.events]\nbucket = "events"\n'


def project(folder: Path, account: str = ACCOUNT, **wrangler: str) -> Path:
    (folder / "edgesim.toml").write_text(account)
    for name, extra in {"a": "", **wrangler}.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "entry.py").write_text("")
        (folder / name / "wrangler.toml").write_text(
            f'name = "{name}"\nmain = "entry.py"\n{extra}\n'
        )
    return folder


def problem(folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_project(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults(tmp_path):
    """The defaults are embedded backends in .edgesim beside the file and 90 s windows."""
    loaded = load_project(project(tmp_path))
    assert loaded.entry == "a"
    assert loaded.isolation_of("receiver") == "process"
    assert loaded.backends.r2 == f"file:{tmp_path}/.edgesim/r2"
    assert loaded.account.pipelines["events"].max_seconds == 90


def test_unknown_key_has_the_nearest_spelling(tmp_path):
    """An unknown key of edgesim.toml is refused, and the error suggests the right one."""
    said = problem(project(tmp_path, ACCOUNT + "max_second = 5\n"))
    assert "pipelines.events.max_second" in said
    assert "max_seconds" in said


def test_unknown_key_at_the_top(tmp_path):
    """Unknown keys of the top table are refused too."""
    assert "'workers'" in problem(project(tmp_path, 'worker = ["a"]\n'))


def test_unknown_isolation(tmp_path):
    """An unknown isolation level is refused with the key."""
    assert "isolation" in problem(project(tmp_path, 'isolation = "docker"\n' + ACCOUNT))


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ('[[pipelines]]\nbinding = "P"\nstream = "event"', "did you mean 'events'?"),
        ('[[services]]\nbinding = "S"\nservice = "clickhuse"', "did you mean 'clickhouse'?"),
        ('[[tail_consumers]]\nservice = "tail"', "there is no Worker named 'tail'"),
    ],
)
def test_names_must_exist(tmp_path, extra, expected):
    """A binding to a name that does not exist is refused with the file and a suggestion."""
    said = problem(project(tmp_path, a=extra))
    assert expected in said
    assert "wrangler.toml" in said


def test_one_consumer_a_queue(tmp_path):
    """A second push consumer of a queue is refused."""
    consumer = '[[queues.consumers]]\nqueue = "q"'
    said = problem(project(tmp_path, 'workers = ["a", "b"]\n', a=consumer, b=consumer))
    assert "has a consumer already" in said


def test_flags_win_over_environment_over_file(tmp_path):
    """A flag overrides the environment, which overrides the file."""
    folder = project(tmp_path, ACCOUNT + '[backends]\nr2 = "file:here"\nqueues = "memory:"\n')
    loaded = load_project(
        folder, Overrides(r2="memory:"), Environment(r2="file:/e", queues="sqlite:/e/q.db")
    )
    assert loaded.backends.r2 == "memory:"
    assert loaded.backends.queues == "sqlite:/e/q.db"


def test_state_directory_moves_what_is_in_it(tmp_path):
    """--state moves only the paths that begin with .edgesim/."""
    folder = project(tmp_path, ACCOUNT + '[backends]\nqueues = "sqlite:mine/q.db"\n')
    loaded = load_project(folder, Overrides(state=tmp_path / "s"))
    assert loaded.backends.clickhouse == f"chdb:{tmp_path}/s/clickhouse"
    assert loaded.backends.queues == f"sqlite:{tmp_path}/mine/q.db"


def test_environment_variables():
    """EDGESIM_X sets the field x; an empty variable counts as unset."""
    read = Environment.read(
        {"EDGESIM_R2": "memory:", "EDGESIM_S3_ACCESS_KEY": "k", "EDGESIM_QUEUES": ""}
    )
    assert (read.r2, read.queues) == ("memory:", None)
    variables = {"key": "EDGESIM_S3_ACCESS_KEY", "queues": "EDGESIM_QUEUES", "other": "OTHER"}
    assert read.credentials(variables) == {"key": "k", "queues": None, "other": None}


def test_root_is_found(tmp_path, monkeypatch):
    """The root is the argument, else the current folder, else ./workers."""
    (tmp_path / "workers").mkdir()
    project(tmp_path / "workers")
    monkeypatch.chdir(tmp_path)
    assert find_root(None) == tmp_path / "workers"
    assert find_root("workers/edgesim.toml") == tmp_path / "workers"
    with pytest.raises(UsageError, match="no project here"):
        find_root("elsewhere")
