"""First uses of library modules that set names of theirs: they come before the snapshot.

Some functions of the library compile a pattern or fill a table when they are first called.  That
would look like a change by worker code.  No result depends on when the first call is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_USES: dict[str, Callable[[Any], object]] = {
    "base64": lambda base64: [
        base64.b32decode(base64.b32encode(b"x")),
        base64.b32hexdecode(base64.b32hexencode(b"x")),
        base64.a85decode(base64.a85encode(b"x")),
        base64.b85decode(base64.b85encode(b"x")),
    ],
    "ipaddress": lambda ipaddress: format(ipaddress.IPv4Address(0), "x"),
    "pkgutil": lambda pkgutil: pkgutil.resolve_name("sys:path"),
    "posixpath": lambda path: [path.expandvars("$"), path.expandvars(b"$")],
    "urllib.parse": lambda parse: [
        parse._splittype("a:b"),  # noqa: SLF001 (urllib.request and mimetypes call these three)
        parse._splithost("//a/b"),  # noqa: SLF001
        parse._splitport("a:1"),  # noqa: SLF001
        parse.unquote_to_bytes("%20"),
    ],
    "zipfile": lambda zipfile: zipfile._ZipDecrypter(b""),  # noqa: SLF001
}
"""Module -> its first uses."""


def make_first_uses(name: str, module: Any) -> None:
    """Call the functions of the module that set names of it when they are first called."""
    if name in _USES:
        _USES[name](module)
