"""Reading and validating a Worker's wrangler file."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesim.config.files import parse_jsonc
from edgesim.config.wrangler import load_worker
from edgesim.errors import ConfigError


def worker(folder: Path, text: str, name: str = "wrangler.jsonc") -> Path:
    (folder / "entry.py").write_text("")
    (folder / name).write_text(text)
    return folder


def problem(folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_worker(folder)
    return str(caught.value)


def test_comments_and_trailing_commas(tmp_path):
    """Both kinds of comments and trailing commas are skipped, but kept inside strings."""
    config = load_worker(
        worker(
            tmp_path,
            """{ // the Worker
            "name": "a", /* many
            lines */ "main": "entry.py",
            "vars": {"URL": "http://x//y", "LIST": [1, 2,],},
            }""",
        )
    )
    assert config.settings.vars == {"URL": "http://x//y", "LIST": [1, 2]}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_plain_json_is_read_unchanged(value):
    """Valid JSON has the same value when parsed as JSONC."""
    assert parse_jsonc(json.dumps(value)) == value
    assert parse_jsonc(json.dumps(value, ensure_ascii=False, indent=1)) == value


def test_toml(tmp_path):
    """wrangler.toml is read as well."""
    text = 'name = "a"\nmain = "entry.py"\n[[queues.consumers]]\nqueue = "q"\n'
    config = load_worker(worker(tmp_path, text, "wrangler.toml"))
    assert config.settings.queues.consumers[0].queue == "q"
    assert config.settings.queues.consumers[0].max_batch_timeout == 5


def test_syntax_error_names_file_and_line(tmp_path):
    """A syntax error is one line with file and position; comments do not shift the line."""
    said = problem(worker(tmp_path, '{\n// one\n"name": oops }'))
    assert "wrangler.jsonc" in said
    assert "line 3" in said
    assert "\n" not in said


def test_wrong_type_names_the_key(tmp_path):
    """A known key of the wrong type is an error with its path."""
    text = '{"name": "a", "main": "entry.py", "queues": {"consumers": [{"queue": 5}]}}'
    assert "queues.consumers[0].queue" in problem(worker(tmp_path, text))


def test_missing_main_file(tmp_path):
    """A main file that does not exist is an error with its name."""
    assert "nothere.py" in problem(worker(tmp_path, '{"name": "a", "main": "nothere.py"}'))


def test_main_has_the_extension_of_a_worker(tmp_path):
    """Python, JavaScript or TypeScript; the error lists the extensions."""
    said = problem(worker(tmp_path, '{"name": "a", "main": "index.rb"}'))
    assert "'index.rb' is no module of a Worker (.js, .jsx, .mjs, .mts, .py, .ts, .tsx)" in said


def test_unknown_keys_are_listed(tmp_path):
    """Cloudflare's keys that edgesim does not use are accepted and listed."""
    text = '{"name": "a", "main": "entry.py", "logpush": true, "$schema": "x"}'
    assert load_worker(worker(tmp_path, text)).ignored_keys == ["logpush"]


def test_a_name_bound_twice(tmp_path):
    """Two bindings of the same name are refused."""
    text = """{"name": "a", "main": "entry.py", "vars": {"X": "1"},
               "r2_buckets": [{"binding": "X", "bucket_name": "bucket"}]}"""
    assert "bound twice" in problem(worker(tmp_path, text))


def test_dev_vars_are_secrets_over_vars(tmp_path):
    """.dev.vars adds text bindings and overrides vars; quotes are removed."""
    (tmp_path / ".dev.vars").write_text('# local\nKEY="s3cret"\nexport X=2\n')
    text = '{"name": "a", "main": "entry.py", "vars": {"X": "1"}}'
    values = {each.name: each.value for each in load_worker(worker(tmp_path, text)).bindings()}
    assert values == {"KEY": "s3cret", "X": "2"}


def test_no_wrangler_file(tmp_path):
    """The error for a folder without a wrangler file names the expected files."""
    assert "wrangler.toml" in problem(tmp_path)


def test_streaming_tail_consumers_are_named(tmp_path):
    """A key whose traces no Worker receives is a warning with the way out."""
    text = '{"name": "a", "main": "entry.py", "streaming_tail_consumers": [{"service": "t"}]}'
    found = load_worker(worker(tmp_path, text))
    (warning,) = found.warnings
    assert "streaming_tail_consumers is not in edgesim" in warning
    assert found.ignored_keys == []


WRONG = [
    ({"queues": {"consumers": [{"queue": "q"}, {"queue": "p", "max_batch_size": 500}]}},
     "queues.consumers[1].max_batch_size: must be 1 to 100, not 500"),
    ({"queues": {"consumers": [{"queue": "q", "dead_letter_queue": "q"}]}},
     "queues.consumers[0].dead_letter_queue: is the queue itself"),
    ({"queues": {"consumers": [{"queue": "q", "type": "http_pull"}]}},
     "write [queues.q.pull] in edgesim.toml"),
    ({"r2_buckets": [{"binding": "B", "bucket_name": "No_Bucket"}]},
     "r2_buckets[0].bucket_name: 'No_Bucket' is no bucket name"),
    ({"observability": {"enabled": True, "head_sampling_rate": 1.5}},
     "observability.head_sampling_rate"),
    ({"triggers": {"crons": None}}, "triggers.crons: is null"),
    ({"compatibility_date": "2026-02-30"}, "compatibility_date: '2026-02-30' is not a date"),
    ({"node_compat": True}, "node_compat: is no longer supported; use the compatibility flag"),
    ({"main": ""}, "main"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "expected"), WRONG)
def test_what_wrangler_or_the_platform_refuses_is_refused(tmp_path, keys, expected):
    """The error is one line with the file, the key and the cure."""
    said = problem(worker(tmp_path, json.dumps({"name": "a", "main": "entry.py"} | keys)))
    assert expected in said
    assert "wrangler.jsonc: " in said
    assert "\n" not in said


def test_names_that_are_left_to_wrangler(tmp_path):
    """Missing names of the Worker, a bucket and a queue are derived as wrangler derives them."""
    folder = tmp_path / "My Worker"
    folder.mkdir()
    text = """{"main": "entry.py", "r2_buckets": [{"binding": "MY_FILES"}],
               "queues": {"producers": [{"binding": "JOBS"}]}}"""
    config = load_worker(worker(folder, text))
    assert config.name == "my-worker"
    assert config.settings.r2_buckets[0].bucket_name == "my-worker-my-files"
    assert config.settings.queues.producers[0].queue == "my-worker-jobs"
    assert "the file has no name" in config.warnings[0]


def test_what_the_start_warns_of(tmp_path):
    """Warnings: unknown keys with a suggestion, missing secrets and unsupported bindings."""
    text = """{"name": "a", "main": "entry.py", "triggers": {"cron": []},
               "d1_databases": [{"binding": "CACHE"}], "secrets": {"required": ["K"]},
               "env": {"s": {"r2_bucket": []}}}"""
    warnings = load_worker(worker(tmp_path, text)).warnings
    assert warnings == [
        "Cloudflare knows no key `triggers.cron`; did you mean `crons`?",
        "Cloudflare knows no key `r2_bucket` in env.s; did you mean `r2_buckets`?",
        "secret K is required and in no .dev.vars or .env file",
        "d1_databases is not in edgesim: env.CACHE is not there",
    ]


@pytest.mark.parametrize("name", ["wrangler.jsonc", "wrangler.json", "wrangler.toml"])
def test_a_byte_order_mark_is_skipped(tmp_path, name):
    """A byte order mark, as editors on Windows write it, is skipped."""
    text = 'name = "a"\nmain = "entry.py"\n' if name.endswith("toml") else ""
    text = text or '{"name": "a", "main": "entry.py"}'
    (tmp_path / ".dev.vars").write_text("\ufeffA=1\n", "utf-8")
    assert load_worker(worker(tmp_path, "\ufeff" + text, name)).secrets == {"A": "1"}


def test_a_version_is_that_of_all_modules(tmp_path):
    """A module in a folder below changes it; vendored packages and hidden folders do not."""
    (tmp_path / "wrangler.jsonc").write_text('{"name": "w", "main": "entry.py"}')
    for name in ("entry.py", "parts/one.py", "python_modules/big/x.py", ".edgesim/y.py"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    worker = load_worker(tmp_path)
    versions = [worker.version_id()]
    for name in ("parts/one.py", "entry.py", "python_modules/big/x.py", ".edgesim/y.py"):
        (tmp_path / name).write_text("changed = True\n")
        versions.append(worker.version_id())
    (tmp_path / "parts" / "gone.py").symlink_to(tmp_path / "nothing")
    versions.append(worker.version_id())
    assert [versions.index(each) for each in versions] == [0, 1, 2, 2, 2, 2]
    (tmp_path / "parts").rename(tmp_path / "pieces")
    assert worker.version_id() not in versions
