"""Trace context: its header, and how batches join traces."""

import pytest

from edgesim.clock import Clock
from edgesim.tracing import LINKS_MAX, Span, TraceContext, Tracer, TraceSources, current, parsed

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def tracer(spans=None, *, rate=True, follows_parent=True):
    found = [] if spans is None else spans
    return Tracer(Clock(1), found.append, lambda *_: rate, follows_parent=follows_parent)


def context(trace, span=1, *, sampled=True):
    return TraceContext(trace, span, sampled)


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f" 00-{TRACE}-{SPAN}-03 ", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-has", True),
    ],
)
def test_valid_headers(text, sampled):
    """A valid header is read, that of a later version too; it is written as version 00."""
    found = parsed(text)
    assert found == TraceContext(int(TRACE, 16), int(SPAN, 16), sampled)
    assert found.traceparent() == f"00-{TRACE}-{SPAN}-0{int(sampled)}"


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "x",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n00",
    ],
)
def test_invalid_headers(text):
    """An invalid header is ignored, as the specification demands."""
    assert parsed(text) is None


def test_state_is_kept_unless_too_long():
    """``tracestate`` goes on with the context; one over the limit is dropped."""
    trace, span = int(TRACE, 16), int(SPAN, 16)
    header = f"00-{TRACE}-{SPAN}-01"
    assert parsed(header, "a=1,b=2") == TraceContext(trace, span, state="a=1,b=2")
    assert parsed(header, "a=" + "x" * 512) == TraceContext(trace, span)


def test_a_batch_of_one_trace_continues_it():
    """TraceSources of one trace: the first is the parent, the others are links."""
    first, second = context(7, 1), context(7, 2)
    begun = tracer().begin("w", sources=TraceSources([first, None, second, first]))
    assert (begun.context.trace_id, begun.parent, begun.links) == (7, first, [second])


def test_a_batch_of_many_traces_begins_its_own():
    """TraceSources of several traces: a new trace without a parent, linked to each."""
    sources = TraceSources(context(number) for number in range(1, 4))
    begun = tracer().begin("w", sources=sources)
    assert begun.parent is None
    assert begun.context.trace_id not in {1, 2, 3}
    assert begun.links == list(sources.contexts)


def test_a_batch_is_sampled_if_one_source_is():
    """One who follows an event does not lose it in a batch."""
    sources = TraceSources([context(1, sampled=False), context(2)])
    assert tracer(rate=False).begin("w", sources=sources).context.sampled
    nobody = TraceSources([context(1, sampled=False), context(2, sampled=False)])
    assert not tracer().begin("w", sources=nobody).context.sampled


def test_links_are_bounded_and_the_rest_is_counted():
    """A window of any number of sends has at most LINKS_MAX links."""
    sources = TraceSources(context(number) for number in range(1, LINKS_MAX + 6))
    begun = tracer().begin("w", sources=sources)
    assert (len(begun.links), begun.left_out) == (LINKS_MAX, 5)


def test_a_clients_decision_may_be_ignored():
    """With a sampler that is not parent-based, clients do not decide what is sampled."""
    asked = context(1)
    own = tracer(rate=False, follows_parent=False)
    assert not own.begin("w", asked, remote=True).context.sampled
    assert own.begin("w", asked).context.sampled
    assert tracer(rate=False).begin("w", asked, remote=True).context.sampled


def test_a_span_is_current_in_its_block_and_has_its_error():
    """The block's work continues the span; an exception passes and is its error."""
    spans: list[Span] = []
    seen = []

    def work():
        with tracer(spans).span("work"):
            seen.append(current.get())
            raise ValueError("no luck")

    with pytest.raises(ValueError, match="no luck"):
        work()
    assert seen == [spans[0].context]
    assert current.get() is None
    assert [(each.name, each.error) for each in spans] == [("work", "ValueError: no luck")]
    assert spans[0].attributes["error.type"] == "ValueError"
    assert spans[0].end_ns >= spans[0].start_ns


def test_unsampled_work_has_a_context_and_no_span():
    """The decision is passed on, and nothing is recorded."""
    spans: list[Span] = []
    with tracer(spans, rate=False).span("work"):
        found = current.get()
        assert found is not None
        assert found.traceparent().endswith("-00")
    assert spans == []
