"""Monthly costs from a load or from a run's counters, in dollars."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesim.cost.bill import bill
from edgesim.cost.prices import read_prices
from edgesim.cost.usage import ITEMS, Load, Roles, measured, planned, used

PRICES = read_prices()
STATS = {
    "receiver": {"requests": 2_000, "rejected": 100},
    "invocations": {
        "receiver": {"ok": 1_999, "exception": 1},
        "tail": {"ok": 20},
        "insert": {"ok": 3, "exceededCpu": 1},
        "dead-letter": {},
    },
    "cpu_ms": {"receiver": 500.0, "tail": 380.0, "insert": 8.0, "dead-letter": 0.0},
    "pipelines": {"events": {"records": 1_900, "bytes": 760_000}, "errors": {"bytes": 0}},
    "r2": {"events": {"objects": 2, "bytes": 95_000, "class_a": 2, "class_b": 3}},
    "queues": {"ingest": {"operations": 11}},
}


def usd(usage, **more):
    return bill(usage, PRICES, **more).usd


def test_a_billion_events_a_day():
    """The bill of a billion events a day equals a calculation by hand from the price pages."""
    month = bill(planned(Load(event_bytes=400, receiver_cpu_ms=1, tail_cpu_ms=0.5)), PRICES)
    found = {(line.stage, line.item): line for line in month.lines}
    assert found["receiver", "requests"].quantity == 30e9
    # 10 million requests are included, and the insert Worker's are on the same account.
    inserts = found["insert", "requests"]
    requests = found["receiver", "requests"].usd + inserts.usd
    assert requests == pytest.approx((30e9 + inserts.quantity - 10e6) * 0.30 / 1e6)
    assert found["pipeline", "pipeline_sink_gb"].usd == pytest.approx((12_000 - 50) * 0.03)
    assert found["r2", "r2_gb_month"].usd == pytest.approx((1_715 - 10) * 0.015)
    assert found["receiver", "requests"].article_usd == pytest.approx(9_000)
    assert found["insert", "cpu_ms"].article_usd is None
    assert month.usd == pytest.approx(5 + sum(line.usd for line in month.lines))


def test_five_times_the_load_is_five_times_the_bill():
    """The cost is linear in the load, apart from the included allowances."""
    one, five = usd(planned(Load())), usd(planned(Load(events_per_day=5e9)))
    assert five / one == pytest.approx(5, rel=0.01)


def test_what_is_included_is_free():
    """A load within the allowances costs only the plan."""
    assert usd(planned(Load(events_per_day=10_000))) == PRICES.plan_usd


@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "c"]),
        st.dictionaries(st.sampled_from(ITEMS), st.floats(0, 1e12)),
    )
)
def test_allowances_are_shared_and_given_once(usage):
    """Splitting an item over stages does not change the bill; no line is negative."""
    joined: dict[str, float] = {}
    for items in usage.values():
        for item, quantity in items.items():
            joined[item] = joined.get(item, 0) + quantity
    assert usd(usage) == pytest.approx(usd({"all": joined}))
    assert usd(usage) >= PRICES.plan_usd
    assert all(line.usd >= 0 for line in bill(usage, PRICES).lines)


def test_a_run_is_billed_by_what_its_workers_are():
    """Requests are billed for the entry and consumers, CPU for all; idle stages are left out."""
    usage = used(STATS, Roles("receiver", ["insert", "dead-letter"]))
    assert usage["receiver"] == {"cpu_ms": 500.0, "requests": 2_000}
    assert usage["insert"] == {"cpu_ms": 8.0, "requests": 4}
    assert usage["tail"] == {"cpu_ms": 380.0}
    assert usage["queue ingest"] == {"queue_operations": 11}
    assert usage["r2 events"] == {"r2_class_a": 2, "r2_class_b": 3, "r2_gb_month": 95e-6}
    assert "dead-letter" not in usage
    assert "pipeline errors" not in usage
    expected = 2_004 * 0.30e-6 + 888 * 0.02e-6 + 760e-6 * 0.07 + 2 * 4.5e-6 + 3 * 0.36e-6
    expected += 95e-6 * 0.015 + 11 * 0.4e-6
    assert usd(usage, included=False) == pytest.approx(expected)


def test_kv_is_billed_by_operation():
    """Keys that are read have one price; writes, deletions and lists another."""
    stats = STATS | {
        "kv": {"seen": {"reads": 12_000_000, "writes": 3, "deletes": 2, "lists": 1}, "idle": {}}
    }
    usage = used(stats, Roles("receiver", []))
    assert usage["kv seen"] == {"kv_reads": 12e6, "kv_writes": 3, "kv_deletes": 2, "kv_lists": 1}
    assert "kv idle" not in usage
    alone = {"kv seen": usage["kv seen"]}
    assert usd(alone, included=False) == pytest.approx(6 + 6 * 5e-6)
    assert usd(alone) == pytest.approx(PRICES.plan_usd + 1)


def test_sql_and_sinks_are_billed_apart():
    """A pipeline's SQL is billed once; each sink has the price of its format."""
    stats = STATS | {
        "pipelines": {"split": {"bytes": 2e9}, "old": {"bytes": 1e9}},
        "sinks": {"lake": {"bytes": 5e9}, "log": {"bytes": 3e9}},
    }
    usage = used(stats, Roles("receiver", [], ["split"], ["lake"]))
    assert usage["pipeline split"] == {"pipeline_sql_gb": 2}
    assert usage["pipeline old"] == {"pipeline_sql_gb": 1, "pipeline_sink_gb": 1}
    assert usage["sink lake"] == {"pipeline_parquet_gb": 5}
    assert usage["sink log"] == {"pipeline_sink_gb": 3}
    lines = {
        (line.stage, line.item): line.usd for line in bill(usage, PRICES, included=False).lines
    }
    assert lines["pipeline split", "pipeline_sql_gb"] == pytest.approx(0.08)
    assert lines["sink lake", "pipeline_parquet_gb"] == pytest.approx(0.30)
    assert lines["sink log", "pipeline_sink_gb"] == pytest.approx(0.09)


def test_a_plan_by_a_runs_figures():
    """CPU, event size and compression are the run's; other values stay as they were."""
    load = measured(STATS, Load(window_seconds=60))
    assert load.event_bytes == 400
    assert load.events_per_request == 1
    assert load.compression == 8
    assert (load.receiver_cpu_ms, load.tail_cpu_ms, load.insert_cpu_ms) == (0.25, 0.2, 2)
    assert load.window_seconds == 60


def test_the_table_names_every_item_once():
    """Every item has a price, and the article prices no other items."""
    assert set(PRICES.items) == set(ITEMS)
    assert set(PRICES.article.items) <= set(ITEMS)
    assert len(PRICES.as_of) == len("2026-11")
    for price in PRICES.items.values():
        assert price.usd > 0
        assert price.per >= 1
    assert msgspec.to_builtins(PRICES)["plan_usd"] == 5
