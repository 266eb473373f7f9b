"""Types whose state cannot be compared: modules that hold one are executed for each invocation."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.processes import ROOT

UNKNOWN = {
    "generator": "(each for each in [1])",
    "list_iterator": "iter([1])",
    "count": "__import__('itertools').count()",
    "Random": "__import__('random').Random(1)",
    "_lru_cache_wrapper": "__import__('functools').lru_cache(lambda: 1)",
    "ContextVar": "__import__('contextvars').ContextVar('x')",
    "ReferenceType": "__import__('weakref').ref(int)",
    "_abc_data": "type('C', (__import__('abc').ABC,), {})",
    "StringIO": "__import__('io').StringIO()",
    "ValueError": "ValueError(1)",
    "MD5": "__import__('_md5').md5()",
    "coroutine": "(lambda c: c)(later())",
    "memoryview": "memoryview(b'')",
    "dict_values": "{}.values()",
    "Struct": None,
    "zip": "zip()",
    "SRE_Scanner": "__import__('re').compile('').scanner('')",
}
"""Name of a type that the reason names, and an expression with such an object; None: comparable."""
KNOWN = [
    "[1, {2}]",
    "{'a': (1, [2])}",
    "bytearray(b'x')",
    "lambda x=[]: x",
    "type('C', (), {'__slots__': ('a',)})()",
    "type('C', (dict,), {})(a=1)",
    "__import__('collections').namedtuple('N', 'a b')(1, [])",
    "__import__('re').compile('x')",
    "__import__('threading').Lock()",
    "__import__('decimal').Decimal(1)",
    "__import__('datetime').datetime(2026, 1, 1)",
    "__import__('struct').Struct('>I')",
    "__import__('uuid').UUID(int=1)",
    "__import__('fractions').Fraction(1, 2)",
    "__import__('json').JSONDecoder()",
    "__import__('logging').getLogger('known')",
    "[].append",
]

if sys.version_info < (3, 12):  # later versions count a reference to its dict that is not visited
    KNOWN.append("__import__('enum').Enum('E', 'A B').A")


def refusals(expressions):
    """Return why modules with one of these objects each would not be reused."""
    ran = subprocess.run(
        [sys.executable, Path(__file__).with_name("refusals.py")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'edgesim' / 'sdk'}"},
        input=json.dumps(expressions),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_unknown_state_is_never_reused():
    """A type whose state cannot be seen makes a module unfit; the reason names the type."""
    expressions = {name: each for name, each in UNKNOWN.items() if each is not None}
    found = refusals(list(expressions.values()))
    assert [str(each).rpartition(" ")[2].lower() for each in found] == [
        name.lower() for name in expressions
    ]


def test_comparable_state_is_reused():
    """Ordinary values, classes, functions and objects do not keep a module from being reused."""
    assert dict(zip(KNOWN, refusals(KNOWN), strict=True)) == dict.fromkeys(KNOWN)


def test_a_reference_from_outside_is_never_reused():
    """A module whose object a library keeps is unfit: another reference could take its place."""
    [found] = refusals(["kept.append([1]) or kept[-1]"])
    assert found == "something outside the modules refers to a list of theirs"
