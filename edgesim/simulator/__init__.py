"""Wires a project's configuration into a running system; no other package does.

``primitives`` has the buckets, queues and pipelines, ``workers`` the Workers between them;
``simulator`` contains and runs both; ``draining`` and ``stats`` read both.
"""

from edgesim.simulator.simulator import Simulator, open_simulator
from edgesim.simulator.workers import isolates_of

__all__ = ["Simulator", "isolates_of", "open_simulator"]
