"""The inspector of a workerd process: V8's debugger, on a port of loopback that workerd picks.

A Unix socket would need no port, but workerd 2026-11-17 waits for ever for the number of its port.
workerd serves every Host and Origin, and lists the path of its Worker at ``/json``: a web page
whose name resolves to this machine (DNS rebinding) could run code in the Worker.  So on Linux,
where all of 127.0.0.0/8 is this machine, the address is one of 16 million that no page knows.
"""

from __future__ import annotations

import secrets
from ipaddress import IPv4Address

import msgspec

from edgesim.system import LINUX

_FIRST, _COUNT = IPv4Address("127.0.0.2"), (1 << 24) - 3
ADDRESS = str(_FIRST + secrets.randbelow(_COUNT)) if LINUX else "127.0.0.1"
"""Where every inspector of this run listens; not 127.0.0.1 itself."""
SERVICE = f"main-{secrets.token_hex(16)}"
"""The Worker's service in workerd, which is its path there: workerd itself serves web pages too."""
_EVENT = "listen-inspector"


class _ControlMessage(msgspec.Struct):
    """A line that workerd writes when it listens somewhere."""

    event: str
    port: int = 0


def options(control: int) -> tuple[str, str]:
    """Options that make workerd serve a debugger, and report its port on that descriptor."""
    return f"--inspector-addr={ADDRESS}:0", f"--control-fd={control}"


def port(report: bytes) -> int | None:
    """The port that workerd has reported; None if there is none."""
    for line in report.splitlines():
        message = msgspec.json.decode(line, type=_ControlMessage)
        if message.event == _EVENT:
            return message.port
    return None
