"""Where portable code finds the exception of a failed fetch."""


class AbortError(OSError):
    """The request never got an answer."""
