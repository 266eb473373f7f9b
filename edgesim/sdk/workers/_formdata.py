"""The SDK's FormData, a wrapper of ``js.FormData``."""

from __future__ import annotations

from collections.abc import Generator, Iterator, MutableMapping
from typing import Any

import js

from workers._blob import Blob, wrapped


class FormData(MutableMapping[str, Any]):
    """Ordered names and values; a value is a str, a Blob or a File."""

    def __init__(self, form_data: Any = None) -> None:
        if isinstance(form_data, js.FormData):
            self._js_form_data = form_data
            return
        if form_data and not isinstance(form_data, dict):
            raise TypeError("Expected form_data to be a dict or an instance of FormData")
        self._js_form_data = js.FormData()
        for name, value in (form_data or {}).items():
            self._js_form_data.append(name, _raw(value))

    def __getitem__(self, key: str) -> Any:
        return wrapped(self._js_form_data.get(key))

    def __setitem__(self, key: str, value: Any) -> None:
        if isinstance(value, list):
            raise TypeError("Expected single item in arguments to FormData.__setitem__")
        self._js_form_data.set(key, _raw(value))

    def append(self, key: str, value: Any, filename: str | None = None) -> None:
        """Append a value; a str cannot have a filename."""
        self._js_form_data.append(key, _raw(value), filename)

    def delete(self, key: str) -> None:
        """Remove all values of that name."""
        self._js_form_data.delete(key)

    def __contains__(self, key: object) -> bool:
        return self._js_form_data.has(str(key))

    def values(self) -> Generator[Any, None, None]:  # type: ignore[override]
        """Iterate over the values in order."""
        for value in self._js_form_data.values():
            yield wrapped(value)

    def keys(self) -> Generator[str, None, None]:  # type: ignore[override]
        """Iterate over the names, including repeated ones."""
        yield from self._js_form_data.keys()

    def __iter__(self) -> Iterator[str]:
        yield from self.keys()

    def items(self) -> Generator[tuple[str, Any], None, None]:  # type: ignore[override]
        """Iterate over (name, value) in order."""
        for name, value in self._js_form_data.entries():
            yield name, wrapped(value)

    def __delitem__(self, key: str) -> None:
        self.delete(key)

    def __len__(self) -> int:
        # The platform's SDK raises the same error, because its keys() is a generator.
        raise TypeError("object of type 'generator' has no len()")

    def get_all(self, key: str) -> list[Any]:
        """Return all values of that name."""
        return [wrapped(each) for each in self._js_form_data.getAll(key)]

    @property
    def js_object(self) -> js.FormData:
        """The raw ``js.FormData``."""
        return self._js_form_data


def _raw(value: Any) -> Any:
    return value.js_object if isinstance(value, Blob) else value
