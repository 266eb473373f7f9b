"""URL of a ClickHouse server: host, port, database and connection options, without credentials.

``?secure=true`` selects TLS for ``clickhouse://``, like the scheme ``clickhouses://``;
``verify=false`` accepts any certificate, ``ca=FILE`` trusts one authority; ``timeout`` is the
maximum silence of the server in seconds.
"""

from __future__ import annotations

import ssl
from typing import Annotated, Literal, NoReturn
from urllib.parse import parse_qsl, urlsplit

import msgspec

from edgesim.errors import ConfigError

CONNECT_SECONDS = 10.0
_Answer = Literal["true", "false"]
_PORTS = {
    "clickhouse": 9000,
    "clickhouses": 9440,
    "clickhouse+http": 8123,
    "clickhouse+https": 8443,
}


class AddressOptions(msgspec.Struct, forbid_unknown_fields=True):
    """Query parameters of the URL."""

    secure: _Answer = "false"
    verify: _Answer = "true"
    ca: str | None = None
    timeout: Annotated[float, msgspec.Meta(gt=0)] | None = None


class Address(msgspec.Struct, frozen=True):
    """Address and connection options of a server; ``shown`` is its name in messages."""

    host: str
    port: int
    database: str
    secure: bool
    verify: bool
    ca: str | None
    timeout: float | None
    shown: str

    def tls(self) -> ssl.SSLContext | None:
        """Return the TLS context to connect with; None without TLS."""
        if not self.secure:
            return None
        context = ssl.create_default_context(cafile=self.ca)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def read(url: str) -> Address:
    """Parse a server's URL; ConfigError if it is invalid."""
    parts = urlsplit(url)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if parts.username is not None or parts.password is not None:
        _refuse(
            f"a URL holds no user and no password ({shown}); set EDGESIM_CLICKHOUSE_USER and "
            "EDGESIM_CLICKHOUSE_PASSWORD"
        )
    try:
        options = msgspec.convert(dict(parse_qsl(parts.query)), AddressOptions, strict=False)
        port = parts.port
    except (msgspec.ValidationError, ValueError) as error:
        known = ", ".join(AddressOptions.__struct_fields__)
        _refuse(f"{shown}: {error}; a query may hold {known}")
    if not parts.hostname:
        _refuse(f"{url!r} names no host: {parts.scheme}://host:{_PORTS[parts.scheme]}/database")
    secure = parts.scheme.endswith("s") or options.secure == "true"
    scheme = "clickhouses" if secure and parts.scheme == "clickhouse" else parts.scheme
    return Address(
        host=parts.hostname,
        port=port or _PORTS[scheme],
        database=parts.path.strip("/"),
        secure=secure,
        verify=options.verify == "true",
        ca=options.ca,
        timeout=options.timeout,
        shown=shown,
    )


def _refuse(problem: str) -> NoReturn:
    raise ConfigError("backends", "clickhouse", problem)
