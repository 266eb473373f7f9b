"""Fault injection, for replays and for ``edgesim dev``.

``language`` parses rules, ``injector`` decides when a fault strikes (seeded, and recorded), and
``stores`` has the wrappers that apply faults to stores.
"""

from edgesim.faults.language import FaultRule, parse, read

__all__ = ["FaultRule", "parse", "read"]
