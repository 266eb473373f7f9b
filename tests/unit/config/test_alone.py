"""Projects without edgesim.toml, and streams that are referenced by id."""

import json
from pathlib import Path

import pytest

from edgesim.config import load_project
from edgesim.config.loading import find_root
from edgesim.config.project import Overrides
from edgesim.errors import ConfigError, UsageError

ID = "0123456789abcdef0123456789abcdef"


def worker(folder: Path, name: str, **keys: object) -> Path:
    """Write a Worker's wrangler file and its module; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "entry.py").write_text("")
    file = folder / "wrangler.json"
    file.write_text(json.dumps({"name": name, "main": "entry.py"} | keys))
    return file


def test_a_folder_with_a_wrangler_file_is_a_project(tmp_path, monkeypatch):
    """A folder's only Worker is the entry; each assumed default is reported on its own line."""
    worker(tmp_path, "alone", pipelines=[{"binding": "EVENTS", "stream": "clicks_raw"}])
    monkeypatch.chdir(tmp_path)
    project = load_project(find_root(None))
    assert (project.entry, project.root, project.state) == (
        "alone",
        tmp_path,
        tmp_path / ".edgesim",
    )
    assert project.file == tmp_path / "wrangler.json"
    pipeline = project.account.pipelines["clicks_raw"]
    assert (pipeline.bucket, pipeline.max_seconds) == ("pipeline-clicks-raw", 90)
    assert [line.partition(":")[0] for line in project.defaults] == [
        "no edgesim.toml",
        "pipeline 'clicks_raw'",
    ]
    assert find_root(str(tmp_path / "wrangler.json")) == tmp_path


def test_several_wrangler_files(tmp_path):
    """The first wrangler file is the entry; others may be in any folder and are bound by name."""
    files = [
        worker(tmp_path / "a", "first", services=[{"binding": "S", "service": "second"}]),
        worker(tmp_path / "b" / "c", "second"),
    ]
    project = load_project(files[0].parent, Overrides(configs=files))
    assert (project.entry, list(project.workers)) == ("first", ["first", "second"])
    assert "also Workers second" in project.defaults[1]
    with pytest.raises(ConfigError, match=r"'second' is not among those that run; add .* with -c"):
        load_project(files[0].parent, Overrides(configs=files[:1]))


def test_a_tail_worker_that_is_not_given_is_left_out(tmp_path):
    """A Tail Worker that is not in the project is left out, as in wrangler, and reported."""
    worker(tmp_path, "alone", tail_consumers=[{"service": "watcher"}])
    project = load_project(tmp_path)
    assert project.workers["alone"].settings.tail_consumers == []
    assert "'watcher' of 'alone' is left out" in project.defaults[-1]


def test_edgesim_toml_comes_first(tmp_path, monkeypatch):
    """edgesim.toml in the folder or in ./workers takes precedence over a wrangler file."""
    worker(tmp_path / "workers" / "w", "w")
    worker(tmp_path, "root")
    (tmp_path / "workers" / "edgesim.toml").write_text('workers = ["w"]\n')
    monkeypatch.chdir(tmp_path)
    assert list(load_project(find_root(None)).workers) == ["w"]
    with pytest.raises(UsageError, match="nor a wrangler file"):
        find_root(str(tmp_path / "nothing"))


def stream(folder: Path, target: str, toml: str, key: str = "stream") -> Path:
    worker(folder / "w", "w", pipelines=[{"binding": "P", key: target}])
    (folder / "edgesim.toml").write_text('workers = ["w"]\n[pipelines.clicks]\n' + toml)
    return folder


@pytest.mark.parametrize("key", ["stream", "pipeline"])
def test_a_deployed_stream_is_found_by_its_id(tmp_path, key):
    """A binding with a stream id, under either key, uses the pipeline with that id."""
    folder = stream(tmp_path, ID, f'bucket = "clicks"\nid = "{ID}"\n', key)
    project = load_project(folder)
    assert project.workers["w"].settings.pipelines[0].target == "clicks"


def test_an_id_that_no_pipeline_has(tmp_path):
    """The error for an unknown id names the key and the line to add."""
    folder = stream(tmp_path, ID, 'bucket = "clicks"\n')
    with pytest.raises(ConfigError, match=rf'pipelines\[0\].stream: .*write `id = "{ID}"`'):
        load_project(folder)


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        ('bucket = "clicks"\nid = "short"\n', "pipelines.clicks.id: 'short'"),
        ('bucket = "Clicks_"\n', "pipelines.clicks.bucket: 'Clicks_' is no bucket name"),
        ('bucket = "clicks"\n[r2.a_b]\n', "r2.a_b: 'a_b' is no bucket name"),
        ('bucket = "clicks"\n[queues.jobs.pull]\nmax_batch_size = 101\n',
         "queues.jobs.pull.max_batch_size: must be 1 to 100, not 101"),
        ('bucket = "clicks"\n[queues.jobs.pull]\ndead_letter_queue = "jobs"\n',
         "queues.jobs.pull.dead_letter_queue: is the queue itself"),
        ('bucket = "clicks"\n[queues.jobs]\ndelivery_delay = 86401\n',
         "queues.jobs.delivery_delay"),
    ],
)  # fmt: skip
def test_values_of_edgesim_toml_are_checked_when_it_is_read(tmp_path, toml, problem):
    """A wrong value in edgesim.toml is an error with file, full key and limits."""
    with pytest.raises(ConfigError) as refused:
        load_project(stream(tmp_path, "clicks", toml))
    assert f"edgesim.toml: {problem}" in str(refused.value)


def test_without_edgesim_toml_an_id_makes_its_pipeline(tmp_path):
    """The pipeline is named after the binding; a second one of that name has the id appended."""
    other = ID[::-1]
    files = [
        worker(tmp_path / "a", "a", pipelines=[{"binding": "EVENTS", "stream": ID}]),
        worker(tmp_path / "b", "b", pipelines=[{"binding": "EVENTS", "stream": other}]),
        worker(tmp_path / "c", "c", pipelines=[{"binding": "EVENTS", "stream": ID}]),
    ]
    project = load_project(files[0].parent, Overrides(configs=files))
    assert {name: each.id for name, each in project.account.pipelines.items()} == {
        "events": ID,
        f"events_{other}": other,
    }
    assert project.workers["c"].settings.pipelines[0].target == "events"
