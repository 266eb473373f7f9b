"""edgesim reads wrangler files and local secrets as wrangler itself does."""

import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edgesim.config.dotenv import local_secrets
from edgesim.config.wrangler import WorkerConfig, load_worker
from edgesim.errors import ConfigError
from tests.portability.node import HERE, node_for
from tests.portability.wrangler_schema import LISTED, compact

BASE = {
    "name": "w",
    "main": "w.py",
    "compatibility_date": "2026-10-01",
    "compatibility_flags": ["python_workers"],
}
TOML = """
name = "w"
main = "w.py"
compatibility_date = "2026-10-01"
compatibility_flags = ["python_workers"]
"""


def wrangler(asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return wrangler's reading of each file, or its error."""
    node = node_for("wrangler")
    hidden = {"WRANGLER_SEND_METRICS": "false", "CI": "true"}
    finished = subprocess.run(
        [node, str(HERE / "wrangler_config.cjs")],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **hidden},
        check=True,
    )
    answers: list[dict[str, Any]] = json.loads(finished.stdout)
    return answers


def consumer(**keys: Any) -> dict[str, Any]:
    return {"queues": {"consumers": [{"queue": "q", **keys}]}}


def producer(**keys: Any) -> dict[str, Any]:
    return {"queues": {"producers": [{"binding": "Q", **keys}]}}


def bucket(**keys: Any) -> dict[str, Any]:
    return {"r2_buckets": [{"binding": "B", **keys}]}


NULLS = [
    {key: None}
    for key in (
        *("compatibility_date", "compatibility_flags", "env", "limits", "main", "name"),
        *("observability", "pipelines", "queues", "r2_buckets", "route", "routes", "secrets"),
        *("services", "tail_consumers", "triggers", "vars", "workers_dev"),
    )
] + [
    *(
        consumer(**{key: None})
        for key in (
            *("dead_letter_queue", "max_batch_size", "max_batch_timeout", "max_concurrency"),
            *("max_retries", "retry_delay", "type"),
        )
    ),
    {"queues": {"consumers": None}},
    {"queues": {"producers": None}},
    {"triggers": {"crons": None}},
    {"limits": {"cpu_ms": None}},
    {"limits": {"subrequests": None}},
    producer(queue=None),
    producer(queue="q", delivery_delay=None),
    bucket(bucket_name=None),
    {"pipelines": [{"binding": "P", "stream": None, "pipeline": "x"}]},
    {"pipelines": [{"binding": "P", "stream": "x", "pipeline": None}]},
    {"pipelines": [{"binding": "P", "stream": None}]},
    {"services": [{"binding": "P", "service": "x", "entrypoint": None}]},
    {"tail_consumers": [{"service": "x", "environment": None}]},
    {"routes": [{"pattern": "x.example/*", "zone_name": None}]},
    {"vars": {"X": None}},
    {"vars": {"X": [None, {"y": None}]}},
    {"env": {"s": {"triggers": None, "limits": None}}, "triggers": {"crons": ["1 2 * * *"]}},
    {"env": {"s": {"name": None}}},
    {"env": {"s": {"vars": None}}},
]
NAMES: list[dict[str, Any]] = [
    {"name": name}
    for name in (
        "a" * 63,
        "a" * 64,
        "a" * 200,
        "a_b",
        "_a",
        "a-",
        "0",
        "A",
        "-a",
        "a.b",
        "ä",
        "a b",
    )
]
VALUES: list[dict[str, Any]] = [
    *({"r2_buckets": [{"binding": "B", "bucket_name": name}]}
      for name in ("abc", "ab", "a" * 63, "a" * 64, "A-b", "a_b", "a-", "-ab", "a.b", "")),
    bucket(),
    producer(),
    producer(queue=""),
    producer(queue="q", delivery_delay=3.0),
    consumer(max_batch_size=10.0, max_retries=2.0, max_concurrency=3.0),
    consumer(max_batch_timeout=2.5),
    consumer(max_batch_size="10"),
    consumer(type="worker"),
    consumer(type="http_pull"),
    consumer(type="other"),
    {"queues": {"consumers": [{"max_retries": 1}]}},
    {"observability": {}},
    {"observability": {"enabled": True, "head_sampling_rate": 1.0}},
    {"observability": {"enabled": True, "head_sampling_rate": 0}},
    {"observability": {"enabled": True, "head_sampling_rate": 1.5}},
    {"observability": {"enabled": True, "logs": {"head_sampling_rate": -0.5}}},
    {"observability": {"traces": {"enabled": True, "head_sampling_rate": 2}}},
    {"observability": {"traces": {"enabled": True, "head_sampling_rate": 0.25}}},
    {"observability": {"head_sampling_rate": 0.5}},
    {"observability": {"enabled": "yes"}},
    {"limits": {"cpu_ms": 50.0}},
    {"limits": {"cpu_ms": "50"}},
    {"vars": {"A": 1.0, "B": 1.5, "C": [2.0, {"d": 3.0}], "E": "1.0", "F": True, "G": 1e300}},
    {"vars": {"A": "x"}, **bucket(bucket_name="abc"), "secrets": {"required": ["B"]}},
    {"vars": {"B": "x"}, **bucket(bucket_name="abc")},
    {"route": "", "vars": {"A": "x"}},
    {"route": "a.example/*", "routes": ["b.example/*"]},
    {"triggers": {"crons": "* * * * *"}},
    {"compatibility_date": "soon"},
    {"compatibility_date": "2026–01–01"},  # noqa: RUF001 (dashes inserted by an editor)
    {"legacy_env": True},
    {"node_compat": True},
    {"usage_model": "bundled", "zone_id": "z", "type": "javascript", "foo": 1},
    {"queues": {"consumers": [{"queue": "q", "max_batchsize": 3}]}},
    {"pipelines": [{"binding": "P"}]},
    {"pipelines": [{"binding": "P", "pipeline": "old"}]},
    {"tail_consumers": [{"service": "t", "environment": "s"}]},
    {"services": [{"binding": "S", "service": "x", "entrypoint": "default"}]},
    {"env": {"s": {"vars": {"A": "1"}}}, "vars": {"A": "0"}, "triggers": {"crons": ["1 * * * *"]}},
    {"env": {"other": {}}},
]  # fmt: skip
TOML_FILES = [
    TOML + "queues = { consumers = [\n { queue = 'q', # one\n  max_retries = 4, },\n] }\n",
    TOML + "[vars]\nlist = [\n 1,\n 2, # two\n]\ntable = {\n  a = 1,\n  b = [2.0],\n}\n",
    TOML + '[vars]\nescape = "\\e[0m\\x41"\n',
    TOML + "[vars]\nday = 2026-01-02\n",
    TOML + "[vars]\nat = 10:20:30\n",
    TOML + "[vars.deep]\nday = 2026-01-02\nat = 2026-01-02T03:04:05Z\nlocal = 2026-01-02 03:04\n",
    TOML + "[vars.deep]\nhour = 03:04:05.5\noffset = 2026-01-02T03:04:05.123456+02:00\n",
    TOML.replace('"2026-10-01"', "2026-10-01"),
    TOML + "[[r2_buckets]]\nbinding = 'B'\n",
    TOML + "[env.s]\nvars = { A = 'x' }\n",
    TOML + "broken = {\n",
    "\ufeff" + TOML + "vars = { A = 'after a mark' }\n",
]
JSON_FILES = [
    "\ufeff" + json.dumps(BASE | {"vars": {"A": "after a mark"}}),
    json.dumps(BASE)[:-1] + ', /* a */ "vars": {"A": "//", "B": [1, 2,],}, // b\n}',
    json.dumps(BASE)[:-1] + ', "vars": {"A": NaN}}',
    json.dumps(BASE) + "}",
    "",
]


def cases() -> list[tuple[str, str]]:
    """Return the file name and the text of each case."""
    tables = [*NULLS, *NAMES, *VALUES]
    return [
        *(("wrangler.json", json.dumps(BASE | table)) for table in tables),
        *(("wrangler.toml", text) for text in TOML_FILES),
        *(("wrangler.jsonc", text) for text in JSON_FILES),
    ]


def agreed(config: WorkerConfig, answer: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the values that both have: edgesim's and wrangler's by name."""
    ours, theirs = config.settings, answer["config"]
    texts = {name: each["value"] for name, each in answer["vars"].items()}
    return {
        "name": (ours.name, theirs["name"]),
        "vars": (ours.vars | config.secrets, texts),
        "crons": (ours.triggers.crons, theirs["triggers"].get("crons") or []),
        "cpu_ms": (ours.limits.cpu_ms, (theirs.get("limits") or {}).get("cpu_ms")),
        "consumers": (
            [(each.queue, each.max_retries) for each in ours.queues.consumers],
            [
                (each["queue"], each.get("max_retries", 3))
                for each in theirs["queues"].get("consumers") or []
            ],
        ),
        "streams": (
            [each.target for each in ours.pipelines],
            [each.get("stream") or each.get("pipeline") for each in theirs["pipelines"]],
        ),
    }


def test_files_are_taken_refused_and_read_as_wrangler_does(tmp_path):
    """Nulls, names, numbers, sampling, TOML 1.1, dates and BOMs are read as wrangler does."""
    asked: list[dict[str, Any]] = []
    for number, (name, text) in enumerate(cases()):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "w.py").write_text("")
        (folder / name).write_text(text, "utf-8")
        environment = "s" if '"env": {' in text or "[env." in text else None
        asked.append({"config": str(folder / name), "env": environment})
    wrong = []
    for (_, text), question, answer in zip(cases(), asked, wrangler(asked), strict=True):
        try:
            config = load_worker(Path(question["config"]), question["env"])
        except ConfigError as error:
            if "error" not in answer:
                wrong.append(f"edgesim refuses {text}: {error}")
            continue
        if "error" in answer:
            wrong.append(f"wrangler refuses {text}: {answer['error']}")
            continue
        wrong += [
            f"{key} of {text}: {ours!r} is {theirs!r} there"
            for key, (ours, theirs) in agreed(config, answer).items()
            if ours != theirs
        ]
    assert wrong == []
    assert len(asked) > 100


TOKENS = [
    *("A", "B", "KEY_1", "X.y", "=", "=", "A=", "\nB=", "\nKEY_1=", "\n", "\r\n", ":", " ", "\t"),
    *("#", '"', "'", "`", "\\n", "\\r", "\\t", "\\\\", '\\"', "\\'", "\\$", "export ", "abc", "é"),
    *("$A", "${A}", "${B:-d}", "${A:+x}", "${A-${B}}", "$$", "$&", "{", "}", "\ufeff", "\u2028"),
    *('\nA="', '"\n', "\x1f", "\x85", "\v", "\xa0"),
]
ENV_FILES = (".env", ".env.local", ".env.s", ".env.s.local")


def endless(texts: list[str]) -> bool:
    """True if references may expand each other, which makes wrangler run out of memory."""
    return sum(text.count("$") for text in texts) > 3


@pytest.mark.parametrize("seed", range(3))
def test_local_secrets_are_wranglers(tmp_path, seed):
    """Random .dev.vars and .env files yield the same secrets, with the same precedence."""
    chance = random.Random(seed)
    asked: list[dict[str, Any]] = []
    for number in range(200):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "wrangler.json").write_text('{"name": "w", "env": {"s": {}}}')
        names = chance.choice(
            [[".dev.vars"], [".dev.vars", ".dev.vars.s", ".env"], [".dev.vars.s"], list(ENV_FILES),
             [".env"], chance.sample(ENV_FILES, 2)]
        )  # fmt: skip
        texts = ["$" * 9]
        while endless(texts):
            texts = ["".join(chance.choices(TOKENS, k=chance.randrange(1, 30))) for _ in names]
        for name, text in zip(names, texts, strict=True):
            (folder / name).write_bytes(text.encode())
        asked.append({"config": str(folder / "wrangler.json"), "env": chance.choice([None, "s"])})
    some = 0
    for question, answer in zip(asked, wrangler(asked), strict=True):
        folder = Path(question["config"]).parent
        theirs = {name: each["value"] for name, each in answer["vars"].items()}
        assert local_secrets(folder, question["env"]) == theirs, folder
        some += bool(theirs)
    assert some > 60


def test_keys_are_those_of_wranglers_schema():
    """The list that edgesim ships is generated from the schema of the installed wrangler."""
    node_for("wrangler")
    assert json.loads(LISTED.read_text("utf-8")) == compact()
