"""The one wiring place: a project's configuration made into something that runs.

``primitives`` has the buckets, queues and pipelines, ``workers`` the Workers between them;
``simulator`` holds both and runs them, ``draining`` and ``stats`` look at both.
"""

from edgesim.simulator.simulator import Simulator, open_simulator
from edgesim.simulator.workers import isolates_of

__all__ = ["Simulator", "isolates_of", "open_simulator"]
