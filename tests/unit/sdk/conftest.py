"""The SDK is importable in these tests, as in an isolate, where ``workers`` is imported first."""

import sys

from edgesim.isolates.guest.worker_import import SDK

sys.path.insert(0, SDK)

import workers  # noqa: F401
