"""Objects of every kind whose state can be compared."""

import enum
import functools
import operator
import threading
import types
from array import array
from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from typing import NamedTuple, Optional

number = 1
text = "text"
listed = [1, [2, 3], {"deep": [4, {5}]}]
mapped = {"a": 1, "b": {"c": [1]}, ("t", 1): "tuple"}
marked = {"x", "y", 3}
ordered = OrderedDict(first=1, second=2)
counted = defaultdict(list, {"k": [1]})
queued = deque([1, [2], 3], maxlen=5)
octets = bytearray(b"octets")
numbers = array("i", [1, 2, 3])
nested = ([1], {"in": "tuple"})
frozen = frozenset({1, 2})
lock = threading.Lock()
simple = types.SimpleNamespace(a=1, b=[2])
proxied = types.MappingProxyType(mapped)
partial = functools.partial(sorted, key=operator.itemgetter(0))
bound = listed.append
getter = operator.attrgetter("a.b")
alias = list[int]
optional = Optional[int]  # noqa: UP045 (a construct of typing)


def plain(a, b=[], *, c={"k": 1}) -> list[int]:
    """Text."""
    return [a, *b, c]


plain.attribute = ["of a function"]


def counter():
    count = 0
    seen = [0]

    def step():
        nonlocal count
        count += 1
        seen.append(count)
        return count

    return step


step = counter()


def wrapped(function):
    @functools.wraps(function)
    def inner(*args):
        return function(*args)

    return inner


@wrapped
def decorated(value):
    return value


class Meta(type):
    registry = []

    def __new__(cls, name, bases, names):
        made = super().__new__(cls, name, bases, names)
        cls.registry.append(name)
        return made

    @property
    def shown(cls):
        return cls.__name__


class Base:
    shared = ["of a class"]
    __slots__ = ("__weakref__", "left", "right")

    def __init__(self):
        self.left = [1]

    def method(self, value="default"):
        return value

    @staticmethod
    def static(value=1):
        return value

    @classmethod
    def of(cls):
        return cls()

    @property
    def both(self):
        return [self.left]


class Child(Base):
    def __init__(self):
        super().__init__()
        self.own = {"k": [1]}


class WithMeta(metaclass=Meta):
    pass


class Descriptor:
    def __set_name__(self, owner, name):
        self.name = name
        self.values = {}

    def __get__(self, instance, owner=None):
        return self.values.get(id(instance), self.name)


class Described:
    attribute = Descriptor()


class Colour(enum.Enum):
    RED = 1
    BLUE = "b"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclass
class Data:
    name: str
    values: list = field(default_factory=list)


class Pair(NamedTuple):
    left: int
    right: list


class Dictionary(dict):
    pass


class Text(str):
    pass


slotted = Base()
child = Child()
with_meta = WithMeta()
described = Described()
data = Data("d", [1])
pair = Pair(1, [2])
dictionary = Dictionary(a=[1])
dictionary.attribute = 1
textual = Text("subclass")
textual.attribute = [1]
method = child.method
