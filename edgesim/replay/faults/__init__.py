"""What goes wrong on purpose.

``language`` reads what a person wrote, ``injector`` decides when a fault strikes (seeded, and each
one that did is kept for the report), ``stores`` and ``isolates`` are the wrappers where it strikes.
"""

from edgesim.replay.faults.language import Rule, read

__all__ = ["Rule", "read"]
