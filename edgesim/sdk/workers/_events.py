"""Arguments of tail and scheduled handlers: raw objects of the runtime.

Facts: workerd's trace.h.  An optional field that is missing is undefined (None); a name that the
class does not have is an AttributeError.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pyodide.ffi import JsArray, JsProxy


class _RuntimeObject(JsProxy):
    """A raw object with optional fields; ``_classes`` are the classes of nested objects."""

    _optional: ClassVar[frozenset[str]] = frozenset()
    _classes: ClassVar[dict[str, type[JsProxy]]] = {}

    def __getattr__(self, name: str) -> Any:
        value = self._value.get(name)
        if value is None and name in self._optional:
            return None
        if value is None or name not in self._classes:
            return super().__getattr__(name)
        show = self._classes[name]
        return JsArray([show(each) for each in value]) if isinstance(value, list) else show(value)


class FetchRequest(_RuntimeObject):
    """``event.request``, redacted; ``getUnredacted()`` returns the original values."""

    _optional = frozenset({"cf"})

    def __init__(self, value: dict[str, Any]) -> None:
        self._unredacted = value.get("unredacted", value)
        super().__init__({name: each for name, each in value.items() if name != "unredacted"})

    def getUnredacted(self) -> FetchRequest:
        """Return the request with its original URL and headers."""
        return FetchRequest(self._unredacted)


class TraceEvent(_RuntimeObject):
    """``event`` of a trace, of any kind."""

    _classes: ClassVar = {"request": FetchRequest}

    def __getattr__(self, name: str) -> Any:
        if name == "response" and "request" in self._value and "response" not in self._value:
            return None
        return super().__getattr__(name)


class TraceException(_RuntimeObject):
    """An uncaught exception in a trace."""

    _optional = frozenset({"stack"})


class TraceItem(_RuntimeObject):
    """The trace of a finished invocation."""

    _optional = frozenset(
        {
            "dispatchNamespace",
            "durableObjectId",
            "entrypoint",
            "preview",
            "scriptTags",
            "scriptVersion",
            "tailAttributes",
        }
    )
    _classes: ClassVar = {"event": TraceEvent, "exceptions": TraceException}


class ScheduledController(JsProxy):
    """``cron``, ``scheduledTime`` (ms) and ``noRetry()``."""

    _no_retry = False

    def noRetry(self) -> None:
        """Disable retries of a failed run; edgesim never retries one."""
        self._no_retry = True
