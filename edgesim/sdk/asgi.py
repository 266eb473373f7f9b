"""The older name of ``workers.asgi``."""

from typing import Any

import workers.asgi


def __getattr__(name: str) -> Any:
    return getattr(workers.asgi, name)
