"""Fault injection: strikes, their counts and the calm mode."""

from edgesim import faults
from edgesim.clock import Clock
from edgesim.faults.injector import FIRED_MAX, Injector


def test_the_first_strikes_are_told_and_all_are_counted():
    """The first FIRED_MAX faults are recorded one by one; all are counted by rule."""
    rules = faults.read("r2.put error 100%; r2 outage to 1h", {"r2": ["r2", "r2.put"]})
    injector = Injector(rules, 0, Clock(0))
    for _ in range(FIRED_MAX):
        injector.refusal(("r2.put",), "r2.put b/k")
    assert injector.refusal(("r2",), "r2.get b/k") == "fault: r2 outage to 1h"
    assert injector.counts == {"r2.put error 100%": FIRED_MAX, "r2 outage to 1h": 1}
    assert {each.fault for each in injector.fired} == {"r2.put error 100%"}
    assert len(injector.fired) == FIRED_MAX


def test_nothing_strikes_while_it_is_calm():
    """No fault strikes while the injector is calm, so that checks see the real state."""
    injector = Injector(faults.read("r2 error 100%", {"r2": ["r2"]}), 0, Clock(0))
    with injector.calm():
        assert injector.refusal(("r2",), "r2.list b/") is None
    assert not injector.fired
