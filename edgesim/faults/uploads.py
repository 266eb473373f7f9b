"""Multipart uploads with injected faults."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from edgesim.r2.driver import Uploads

UPLOAD_METHODS = ("create", "put_part", "parts", "in_progress", "complete", "abort", "drop")

Act = Callable[[str, str, str, Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""Fault-injecting call: (method, bucket, key or upload id, operation)."""


class FaultyUploads:
    """See Uploads; each method takes the bucket first, then the upload or key."""

    def __init__(self, inner: Uploads, act: Act) -> None:
        self._inner = inner
        self._act = act

    def __getattr__(self, method: str) -> Callable[..., Awaitable[Any]]:
        if method not in UPLOAD_METHODS:
            raise AttributeError(method)
        return partial(self._do, method)

    def _do(self, method: str, bucket: str, about: Any, *rest: Any) -> Awaitable[Any]:
        operation = partial(getattr(self._inner, method), bucket, about, *rest)
        return self._act(method, bucket, str(getattr(about, "key", about)), operation)
