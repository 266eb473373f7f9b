"""What the platform would bill a bucket's callers for: R2 operations by their class.

Facts: R2's pricing page.  Class A changes or lists, class B reads; deleting and aborting are free,
and so is what fails before R2 sees it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from edgesim.runtime.invocation import Binding, Invocation

CLASSES = {
    **dict.fromkeys(("put", "list", "createMultipartUpload"), "class_a"),
    **dict.fromkeys(("uploadPart", "completeMultipartUpload"), "class_a"),
    **dict.fromkeys(("get", "head"), "class_b"),
}


class Metered:
    """A bucket's binding that counts what goes through it."""

    def __init__(self, binding: Binding, operations: Counter[str]) -> None:
        self.counts_as_connection = binding.counts_as_connection
        self._binding = binding
        self._operations = operations

    async def call(
        self, method: str, args: list[Any], options: dict[str, Any], invocation: Invocation
    ) -> Any:
        """As the binding does."""
        if method in CLASSES:
            self._operations[CLASSES[method]] += 1
        return await self._binding.call(method, args, options, invocation)
