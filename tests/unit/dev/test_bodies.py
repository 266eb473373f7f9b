"""Request bodies in memory: a limit for each body and a budget for all."""

import anyio
import pytest

from edgesim.dev import bodies
from edgesim.dev.bodies import SMALL_BYTES_MAX, Bodies, BodyTooLargeError, NoRoomError

pytestmark = pytest.mark.anyio

LARGE = SMALL_BYTES_MAX + 1000


def sending(*chunks: bytes, end: bool = True):
    """Return ASGI's receive for these chunks; it ends with a disconnect unless ``end``."""
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    last = {"type": "http.request", "more_body": False} if end else {"type": "http.disconnect"}

    async def receive():
        return messages.pop(0) if messages else last

    return receive


async def test_a_body_is_read_whole():
    """A body in several chunks is joined in order."""
    async with Bodies().read(sending(b"a", b"", b"bc")) as body:
        assert body == b"abc"


async def test_a_body_over_the_limit(monkeypatch):
    """A body is refused when it exceeds the limit, before the rest is read."""
    monkeypatch.setattr(bodies, "BODY_BYTES_MAX", 10)
    with pytest.raises(BodyTooLargeError):
        async with Bodies().read(sending(b"a" * 6, b"b" * 5, end=False)):
            pass


async def test_a_client_that_goes_away():
    """A client that disconnects within the body raises an error and frees its room."""
    budget = Bodies(1000, room_seconds=0)
    for _ in range(3):
        with pytest.raises(ConnectionResetError):
            async with budget.read(sending(bytes(LARGE), end=False)):
                pass
    async with budget.read(sending(bytes(LARGE))) as body:
        assert len(body) == LARGE


async def test_large_bodies_wait_for_room_and_small_ones_do_not():
    """A large body waits for room, or fails after its timeout; a small one does not wait."""
    budget = Bodies(1500, room_seconds=60)
    order = []

    async def second():
        async with budget.read(sending(bytes(LARGE))):
            order.append("second")

    async with anyio.create_task_group() as group, budget.read(sending(bytes(LARGE))):
        group.start_soon(second)
        await anyio.wait_all_tasks_blocked()
        async with budget.read(sending(bytes(SMALL_BYTES_MAX))):
            order.append("small")
        budget._room_seconds = 0
        with pytest.raises(NoRoomError):
            async with budget.read(sending(bytes(LARGE))):
                pass
        order.append("first ends")
    assert order == ["small", "first ends", "second"]
