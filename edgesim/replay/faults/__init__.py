"""Fault injection for replays.

``language`` parses rules, ``injector`` decides when a fault strikes (seeded, and recorded for the
report), ``stores`` and ``isolates`` are the wrappers that apply faults.
"""

from edgesim.replay.faults.language import FaultRule, read

__all__ = ["FaultRule", "read"]
