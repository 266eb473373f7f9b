"""``s3://HOST:PORT?options``: the server's address and the client's options."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlsplit

import msgspec

from edgesim.errors import ConfigError
from edgesim.urls import redact

_R2 = ".r2.cloudflarestorage.com"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The options of the URL; ``timeout``: seconds without progress."""

    secure: bool = True
    region: str | None = None
    prefix: str = ""
    keys: Literal["encoded", "plain"] = "encoded"
    style: Literal["path", "virtual"] = "path"
    timeout: Annotated[float, msgspec.Meta(gt=0)] = 30


def read_url(url: str) -> tuple[str, Settings]:
    """Host and options; ConfigError for an invalid part or option."""
    parts = urlsplit(url)
    try:
        if not parts.hostname or parts.path.strip("/") or parts.username or parts.password:
            raise ValueError("write s3://HOST:PORT?options; keys and paths do not belong there")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        settings = msgspec.convert(options, Settings, strict=False)
    except (ValueError, msgspec.ValidationError) as error:
        raise ConfigError("backends", "r2", f"{redact(url)}: {error}") from None
    if settings.region is None and parts.hostname.endswith(_R2):
        settings = msgspec.structs.replace(settings, region="auto")
    return parts.netloc, settings
