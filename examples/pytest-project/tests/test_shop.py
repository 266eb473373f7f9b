"""Tests of the shop in virtual time: each takes milliseconds, however long it waits."""

import pytest

ORDER = {"item": "lamp", "mail": "a@example.com"}
MAIL_SERVICE = "https://mail.example.com/send"


async def test_an_order_is_in_an_object_after_its_window(edgesim):
    """The Pipeline writes its object after 90 s, and not before."""
    answer = await edgesim.fetch(json=ORDER)
    assert answer.status == 200
    await edgesim.advance(89)
    assert await edgesim.records("orders") == []
    await edgesim.advance(2)
    assert await edgesim.records("orders") == [ORDER]


async def test_an_order_without_an_item_is_refused(edgesim):
    """The response is 400, and no record is written."""
    answer = await edgesim.fetch(json={"mail": "a@example.com"})
    assert answer.status == 400
    assert answer.json() == {"error": "no item"}
    await edgesim.settle()
    assert await edgesim.records("orders") == []


async def test_a_mail_is_tried_again(edgesim):
    """The mail service is down at first: a retry one minute later succeeds."""
    edgesim.outbound(MAIL_SERVICE, method="POST", status=503)
    await edgesim.fetch(json=ORDER)
    await edgesim.advance(10)
    assert (await edgesim.queue("mails").depth()).messages == 1
    edgesim.outbound(MAIL_SERVICE, method="POST", status=200)
    await edgesim.advance(70)
    assert (await edgesim.queue("mails").depth()).messages == 0


async def test_a_mail_that_never_goes_out_is_a_dead_letter(edgesim):
    """After three deliveries the message is in the dead-letter queue."""
    edgesim.outbound(MAIL_SERVICE, method="POST", status=503)
    await edgesim.fetch(json=ORDER)
    await edgesim.advance(600)
    [dead] = await edgesim.queue("mails-dead").peek(10)
    assert b"lamp" in dead.body
    deliveries = [trace for trace in edgesim.traces if "queue" in trace.event]
    assert len(deliveries) == 3


async def test_an_order_survives_a_kill(edgesim):
    """A record that the Pipeline has accepted is still there after kill -9."""
    edgesim.outbound(MAIL_SERVICE, method="POST")
    await edgesim.fetch(json=ORDER)
    await edgesim.kill()
    await edgesim.settle()
    assert await edgesim.records("orders") == [ORDER]


@pytest.mark.edgesim(faults="queues.send error 100% to 60s")
async def test_without_its_queue_the_shop_takes_no_order(edgesim):
    """An uncaught exception of a binding results in a response with status 500."""
    assert (await edgesim.fetch(json=ORDER)).status == 500
    await edgesim.advance(60)
    assert (await edgesim.fetch(json=ORDER)).status == 200


async def test_the_rate_is_asked_for(edgesim):
    """The test defines the responses of external services."""
    edgesim.outbound("https://rates.example.com/eur", body="0.92")
    assert (await edgesim.fetch("/rate")).text == "0.92"


async def test_rows_can_be_asked_for(edgesim):
    """Each test has its own database for SQL."""
    assert await edgesim.sql("SELECT 1 + 1, 'two'") == [[2, "two"]]


async def test_an_order_can_be_traced(edgesim):
    """An order is in its Pipeline's log first, then in an object; its message waits for a retry."""
    edgesim.outbound(MAIL_SERVICE, method="POST", status=503)
    await edgesim.fetch(json=ORDER)
    assert {each.stage for each in await edgesim.trace("lamp")} == {"pipeline", "queue"}
    await edgesim.advance(91)
    assert "object" in {each.stage for each in await edgesim.trace("lamp")}
