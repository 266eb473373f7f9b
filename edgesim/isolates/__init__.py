"""Where worker code runs: isolates that have one channel to the platform and no other way out.

``driver`` is the seam, ``wire`` the protocol of every level.  Platform side: ``process`` (a fresh
fork for each invocation, out of one ``zygote`` process per Worker) and ``inline`` (the platform's
own process, for breakpoints).  Isolate side: ``inside`` serves one invocation; ``turns`` is the
event loop of a forked isolate; ``namespace`` makes fresh modules where the process is not fresh.

Roads tried and dropped: forking isolates from the platform itself (a fork of a process that has
threads or the database engine loaded hangs, and drags the platform's memory along); CPython on
WebAssembly (3.6 ms an invocation against 1 ms for a fork); sub-interpreters (no memory or CPU
limit of their own, a segfault takes all).
"""
