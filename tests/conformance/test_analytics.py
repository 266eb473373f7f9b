"""Analytics Engine in virtual time: data points of Workers in both languages become rows."""

import json

import pytest

from edgesim.model import TraceItem, read_all
from edgesim.observation.topology import FlowNode, topology
from edgesim.replay.virtual_clock import VirtualClock
from edgesim.replay.virtual_loop import run_virtual
from tests.javascript_world import programs, write_javascript
from tests.simulated import ask, simulated, write_worker

START = 1_767_225_600
PYTHON = """
from pyodide.ffi import to_js
from js import Object

def fails(call):
    try:
        call()
    except Exception as error:
        return str(error)
    return "nothing was raised"

def written(data):
    point = {"blobs": ["é", None, b"ab\\xff", 5, True, 1.5, [1, None], {}], "indexes": ["i"],
             "doubles": [1, 2.5, "0x10", None, float("inf"), "x", True, " 7 ", []]}
    return [
        data.writeDataPoint(point),
        data.writeDataPoint(to_js({"blobs": ["other"]}, dict_converter=Object.fromEntries)),
        data.writeDataPoint(blobs=["third"], doubles=[float("nan")]),
        data.writeDataPoint(),
    ]

def types(data):
    return [
        fails(lambda: data.writeDataPoint("x")),
        fails(lambda: data.writeDataPoint({"blobs": "x"})),
        fails(lambda: data.writeDataPoint({"indexes": None, "blobs": 1})),
        fails(lambda: data.writeDataPoint({"doubles": b"x"})),
        fails(lambda: data.writeDataPoint({"doubles": [(1 << 53) - 1]})),
    ]

def limits(data):
    data.writeDataPoint({"indexes": ["a", "b"]})
    data.writeDataPoint({"indexes": ["é" * 48 + "x"]})
    data.writeDataPoint({"doubles": [1] * 21})
    data.writeDataPoint({"blobs": [None] * 21, "doubles": [1]})
    data.writeDataPoint({"blobs": ["x" * 15_999, "yz"]})
    data.writeDataPoint({"blobs": ["x" * 15_999, "y"], "indexes": ["é" * 48]})

def many(data):
    return fails(lambda: [data.writeDataPoint({"indexes": ["m"]}) for _ in range(260)])

def raises(data):
    data.writeDataPoint({"indexes": ["before"]})
    raise ValueError("mine")

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response(json.dumps(globals()[request.headers["x-case"]](self.env.DATA)))
"""
JAVASCRIPT = """
function fails(call) {
  try { call(); } catch (error) { return `${error.name}: ${error.message}`; }
  return "nothing was thrown";
}
const cases = {
  written: (data) => [
    data.writeDataPoint({
      blobs: ["é", null, new Uint8Array([97, 98, 255]), 5, true, 1.5, [1, null], {}],
      indexes: ["i"], doubles: [1, 2.5, "0x10", null, Infinity, "x", true, " 7 ", []],
    }) ?? null,
    data.writeDataPoint({ blobs: ["other"], more: 1 }) ?? null,
    data.writeDataPoint({ blobs: ["third"], doubles: [NaN] }) ?? null,
    data.writeDataPoint(null) ?? null,
  ],
  types: (data) => [
    fails(() => data.writeDataPoint("x")),
    fails(() => data.writeDataPoint({ blobs: "x" })),
    fails(() => data.writeDataPoint({ indexes: null, blobs: 1 })),
    fails(() => data.writeDataPoint({ doubles: new Float64Array(1) })),
    fails(() => data.writeDataPoint({ doubles: [5n] })),
    fails(() => data.writeDataPoint({ blobs: [Symbol("x")] })),
    fails(() => data.writeDataPoint({ doubles: [Symbol("x")] })),
  ],
  limits: (data) => {
    data.writeDataPoint({ indexes: ["a", "b"] });
    data.writeDataPoint({ indexes: ["é".repeat(48) + "x"] });
    data.writeDataPoint({ doubles: Array(21).fill(1) });
    data.writeDataPoint({ blobs: Array(21), doubles: [1] });
    data.writeDataPoint({ blobs: ["x".repeat(15_999), "yz"] });
    data.writeDataPoint({ blobs: ["x".repeat(15_999), "y"], indexes: ["é".repeat(48)] });
    return null;
  },
  many: (data) => fails(() => {
    for (let i = 0; i < 260; i++) data.writeDataPoint({ indexes: ["m"] });
  }),
  raises: (data) => { data.writeDataPoint({ indexes: ["before"] }); throw new Error("mine"); },
};
export default {
  async fetch(request, env) {
    return Response.json(cases[request.headers.get("x-case")](env.DATA));
  },
};
"""
LEVELS = {
    "python-process": "process",
    "python-warm": "warm",
    "python-inline": "inline",
    "javascript-process": "process",
    "javascript-warm": "warm",
}
EVENT = "AnalyticsEngineEvent"
TYPES = [
    (
        "TypeError: Failed to execute 'writeDataPoint' on 'AnalyticsEngine': parameter 1 is not of "
        f"type '{EVENT}'."
    ),
    *(
        f"TypeError: Incorrect type for the '{name}' field on '{EVENT}': the provided value is not "
        "of type 'Array'."
        for name in ("blobs", "indexes", "doubles")
    ),
    "TypeError: Cannot convert a BigInt value to a number",
    "TypeError: Cannot convert a Symbol value to a string",
    "TypeError: Cannot convert a Symbol value to a number",
]
REFUSED = [
    "writeDataPoint(): Maximum of 1 indexes supported.",
    "writeDataPoint(): Size of indexes[0] exceeds 96 bytes).",
    "writeDataPoint(): Maximum of 20 doubles supported.",
    "writeDataPoint(): Maximum of 20 blobs supported.",
    "writeDataPoint(): Cumulative size of blobs exceeds 16000 bytes).",
]
COLUMNS = ", ".join(
    [
        "timestamp",
        "index1",
        *(f"blob{n}" for n in range(1, 9)),
        *(f"double{n}" for n in range(1, 10)),
    ]
)
CASES = ("written", "types", "limits", "many", "raises")


def observed(folder):
    """Run all cases in each Worker; return the responses, traces, rows, counts and the flow."""
    names = list(LEVELS)
    for name in names:
        datasets = [{"binding": "DATA", "dataset": f"of-{name}"}]
        write = write_worker if name.startswith("python") else write_javascript
        source = PYTHON if name.startswith("python") else JAVASCRIPT
        write(folder, name, source, analytics_engine_datasets=datasets)
    levels = ", ".join(f'{name} = "{level}"' for name, level in LEVELS.items())

    async def main(loop):
        traces: list[TraceItem] = []
        clock = VirtualClock(loop, 1)
        async with simulated(
            folder,
            *names,
            account=f"isolation = {{ {levels} }}",
            isolation="warm",
            clock=clock,
            programs=programs(),
        ) as simulator:
            for name in names:
                worker = simulator.workers[name]
                worker._tails = [*worker._tails, Traces(traces)]
            asked = {
                (name, case): await ask(simulator, worker=name, headers={"x-case": case})
                for name in names
                for case in CASES
            }
            assert not (await simulator.draining.drain(100)).left
            sql = simulator.primitives.analytics_sql
            texts = {}
            for name in names:
                query = f'SELECT {COLUMNS} FROM "of-{name}" ORDER BY index1, blob1 LIMIT ALL'
                answer = await sql.answer(query)
                texts[name] = (answer.status, (await read_all(answer.body)).decode())
            stats = await simulator.stats()
            return asked, traces, texts, stats, topology(simulator.project)

    return run_virtual(main, 1, START)


class Traces:
    """A consumer of traces that keeps them."""

    def __init__(self, kept):
        self._kept = kept

    def add(self, item, trace=None):
        self._kept.append(item)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """The responses, traces, rows, counts and flow of one run."""
    return observed(tmp_path_factory.mktemp("analytics"))


@pytest.mark.parametrize("name", LEVELS)
def test_a_point_is_a_row(seen, name):
    """Values are converted as by workerd; the row has the time of the call and the defaults."""
    asked, _, texts, _, _ = seen
    assert json.loads(asked[name, "written"][1]) == [None] * 4
    status, text = texts[name]
    rows = json.loads(text)["data"]
    assert (status, len(rows)) == (200, 256)
    found = {row["blob1"]: list(row.values()) for row in rows if row["index1"] in {"", "i"}}
    time = "2026-01-01 00:00:00"
    blobs = ["é", "", "ab\ufffd", "5", "true", "1.5", "1,", "[object Object]"]
    assert found["é"] == [time, "i", *blobs, *(1, 2.5, 16, 0, None, None, 1, 7, 0)]
    assert found["other"] == [time, "", "other", *[""] * 7, *[0] * 9]
    assert found["third"] == [time, "", "third", *[""] * 7, None, *[0] * 8]
    assert found[""] == [time, "", "", *[""] * 7, *[0] * 9]
    assert {row["index1"] for row in rows} == {"", "i", "m", "before", "é" * 48}


@pytest.mark.parametrize("name", LEVELS)
def test_wrong_types_are_thrown(seen, name):
    """The call itself throws workerd's error; nothing is recorded."""
    found = json.loads(seen[0][name, "types"][1])
    assert found == TYPES[: len(found)]
    assert len(found) >= 5


@pytest.mark.parametrize("name", LEVELS)
def test_a_point_over_a_limit_is_in_the_trace_only(seen, name):
    """As in workerd the handler succeeds, and the trace has the error of each refused point."""
    asked, traces, _, stats, _ = seen
    assert asked[name, "limits"][0] == 200
    (refused,) = (each for each in traces if each.script_name == name and len(each.exceptions) == 5)
    assert refused.outcome == "ok"
    assert sorted(each.message for each in refused.exceptions) == sorted(REFUSED)
    assert stats["datasets"][f"of-{name}"] == {
        "points": 256,
        "refused": 5,
        "dropped": 0,
        "pending": 0,
        "rows": 256,
    }


@pytest.mark.parametrize("name", LEVELS)
def test_the_251st_point_of_an_invocation_is_thrown(seen, name):
    """The first 250 are recorded; so is a point before an exception of the handler."""
    asked, _, texts, _, _ = seen
    assert json.loads(asked[name, "many"][1]) == "Error: Analytics Engine write limit exceeded."
    rows = json.loads(texts[name][1])["data"]
    assert sum(row["index1"] == "m" for row in rows) == 250
    assert asked[name, "raises"][0] == 500


def test_every_run_is_the_same(seen, tmp_path):
    """In virtual time a second run gives the same rows, byte for byte, and the same counters."""
    asked, _, texts, stats, flow = observed(tmp_path)
    assert (asked, texts, flow) == (seen[0], seen[2], seen[4])
    assert stats["datasets"] == seen[3]["datasets"]
    assert stats["analytics_sql"] == {"queries": len(LEVELS)}
    node = FlowNode("dataset", "of-python-warm")
    assert [edge.source.name for edge in flow.edges if edge.target == node] == ["python-warm"]
