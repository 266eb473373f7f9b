"""Isolates: they run worker code, and their only connection to the outside is one channel.

``driver`` is the interface, ``wire`` the protocol of all levels, ``limits`` an invocation's limits.

Platform side: ``forks`` starts a Worker's zygote and requests processes from it, ``link`` is the
socket to one process, ``conversation`` one invocation over it.  Two levels use them: ``process`` (a
fresh fork for each invocation) and ``warm`` (a few long-lived forks with many invocations in each).
``inline`` runs in the platform's own process, for breakpoints.  ``restarting`` wraps any level and
restarts a zygote that exited.

Isolate side: ``zygote`` installs the guards (``guard``), imports the Worker (``forked``) and forks;
``turns`` is a fork's event loop, ``shared`` the one for many invocations; ``inside`` serves one
invocation.  ``senses`` is its clock and randomness, ``namespace`` its modules where the process is
not fresh, ``shared_state`` compares shared state there; ``rehearsal`` reduces the cost of a fork.

Tried and dropped: forking isolates from the platform itself (a fork of a process that has threads
or the database engine loaded hangs, and keeps the platform's memory); CPython on WebAssembly (3.6
ms an invocation against 1 ms for a fork); sub-interpreters (no memory or CPU limit of their own, a
segfault ends all of them).
"""
