"""The memory that encoded values take is estimated before they are decoded."""

import json
import random

import msgspec
import pytest

from edgesim.isolates.host import weight
from edgesim.isolates.host.weight import CONTAINER_BYTES, VALUE_BYTES, MsgpackWeight
from edgesim.isolates.protocol.wire import Call, FrameBatch, StreamRef, encode

VALUES = [
    *([each] for each in (None, True, -1, 127, 255, 65_535, 1 << 31, 1 << 40, -100, -(1 << 40))),
    *([each] for each in (1.5, "a", "b" * 40, "c" * 300, "d" * 70_000, b"e", b"f" * 300)),
    [b"g" * 70_000],
    [list(range(20))],
    [[None] * 70_000],
    [{str(number): number for number in range(20)}],
    [dict.fromkeys(range(70000))],
    [StreamRef(1, 2), StreamRef(1 << 40)],
]
PARTS = (1, 2, 3, 7, 1000, 65_536)
"""Sizes of the parts in which an encoding arrives."""
FRAME_CONTAINERS, FRAME_VALUES = 5, 6
"""Containers of a call and its batch beside its arguments, and their other values."""


@pytest.mark.parametrize("args", VALUES, ids=range(len(VALUES)))
def test_msgpack_is_weighed(args):
    """Values of every type have their weight, in whatever parts they arrive."""
    data = bytes(encode(FrameBatch([(1, Call(1, "b", "m", args))])))[4:]
    containers, values = _counted(args)
    whole = (containers + FRAME_CONTAINERS) * CONTAINER_BYTES
    whole += (values + FRAME_VALUES) * VALUE_BYTES
    assert weight.of_msgpack(data) == whole
    for size in PARTS:
        weighed = MsgpackWeight()
        for begin in range(0, len(data), size):
            weighed.feed(memoryview(data)[begin : begin + size])
        assert weighed.bytes == whole, size


def test_json_is_weighed(monkeypatch):
    """Brackets, commas and quotes inside of strings have no weight, wherever a slice ends."""
    monkeypatch.setattr(weight, "_SURELY_LIGHT", -1)
    monkeypatch.setattr(weight, "_SLICE_BYTES", 7)
    chance = random.Random(3)
    for _ in range(2000):
        value = _made(chance)
        text = msgspec.json.encode(value)
        containers, values = _in_json(value)
        counted = weight.of_json(text)
        slices = len(list(weight._outside_strings(text)))  # each may count one value more
        exact = containers * CONTAINER_BYTES + values * VALUE_BYTES
        assert counted == exact + (slices - 1) * VALUE_BYTES, json.dumps(value)


def test_large_text_of_json_is_light():
    """A long text of commas and brackets weighs what one text weighs."""
    text = msgspec.json.encode(["[{,:" * 500_000])
    assert weight.of_json(text) <= CONTAINER_BYTES + 8 * VALUE_BYTES
    assert weight.of_json(b"[" + b"[]," * 500_000 + b"1]") > 500_000 * CONTAINER_BYTES


def _counted(value: object) -> tuple[int, int]:
    """Containers and other values of a message's arguments."""
    if isinstance(value, StreamRef):
        return 1, 0
    if isinstance(value, dict):
        inside = [_counted(each) for pair in value.items() for each in pair]
    elif isinstance(value, list):
        inside = [_counted(each) for each in value]
    else:
        return 0, 1
    return 1 + sum(each for each, _ in inside), sum(each for _, each in inside)


def _in_json(value: object) -> tuple[int, int]:
    """Brackets of JSON, and its commas and colons plus one."""

    def marks(value: object) -> tuple[int, int]:
        if isinstance(value, dict):
            inside = [marks(each) for each in value.values()]
            own = len(value) + max(0, len(value) - 1)
        elif isinstance(value, list):
            inside = [marks(each) for each in value]
            own = max(0, len(value) - 1)
        else:
            return 0, 0
        return 1 + sum(each for each, _ in inside), own + sum(each for _, each in inside)

    containers, separators = marks(value)
    return containers, separators + 1


def _made(chance: random.Random, depth: int = 0) -> object:
    kind = chance.random()
    if kind < 0.3 and depth < 5:
        return [_made(chance, depth + 1) for _ in range(chance.randrange(4))]
    if kind < 0.5 and depth < 5:
        names = ('a,"', "x\\", "[,{", '\\\\"')
        return {chance.choice(names): _made(chance, depth + 1) for _ in range(2)}
    return chance.choice(['"', "\\", '\\\\"', "[[,{:", "é", 1, None, "a\\" * 3])
