"""Conversion of a queue handler's outcome to acks and retries."""

from edgesim.isolates.protocol.wire import Done
from edgesim.model import Retry
from edgesim.runtime.decisions import settle

IDS = ["a", "b", "c"]


def done(outcome: str = "ok", **decided) -> Done:
    result = {"messages": {}, "all": None, "delaySeconds": None} | decided
    return Done(outcome, result=result)


def test_normal_return_acks_the_rest():
    """After a normal return undecided messages are acked; explicit retries keep their delay."""
    result = settle(IDS, done(messages={"b": ("retry", 5)}))
    assert result.acks == ["a", "c"]
    assert result.retries == [Retry("b", 5)]


def test_a_throw_retries_the_rest():
    """After an exception, messages that were not acked are retried."""
    result = settle(IDS, done("exception", messages={"b": ("ack", None)}))
    assert result.acks == ["b"]
    assert result.retries == [Retry("a"), Retry("c")]


def test_ack_all_survives_a_throw():
    """ackAll holds although the handler raises later."""
    assert settle(IDS, done("exception", all="ack")).acks == IDS


def test_retry_all_has_its_delay():
    """The delay of retryAll applies to messages without a decision of their own."""
    result = settle(IDS, done(all="retry", delaySeconds=9, messages={"a": ("ack", None)}))
    assert result.acks == ["a"]
    assert result.retries == [Retry("b", 9), Retry("c", 9)]


def test_an_isolate_that_died_decided_nothing():
    """Without a result the whole batch is retried."""
    assert settle(IDS, Done("internalError")).retries == [Retry(each) for each in IDS]
