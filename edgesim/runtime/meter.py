"""Counts of billable R2 operations by class.

Facts: R2's pricing page.  Class A operations change or list, class B operations read; deleting and
aborting are free, and so are calls that fail before they reach R2.
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
    """Wrapper of a bucket's binding that counts its operations."""

    def __init__(self, binding: Binding, operations: Counter[str]) -> None:
        self.counts_as_connection = binding.counts_as_connection
        self.counts_as_subrequest = binding.counts_as_subrequest
        self._binding = binding
        self._operations = operations

    async def call(
        self, method: str, args: list[Any], options: dict[str, Any], invocation: Invocation
    ) -> Any:
        """Count the call and pass it to the binding."""
        if method in CLASSES:
            self._operations[CLASSES[method]] += 1
        return await self._binding.call(method, args, options, invocation)
