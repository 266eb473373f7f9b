"""Where worker code runs: isolates that have one channel to the platform and no other way out.

``driver`` is the seam, ``wire`` the protocol of every level, ``limits`` what an invocation may use.

Platform side: ``forks`` starts a Worker's zygote and asks it for processes, ``link`` is the socket
to one, ``conversation`` one invocation over it.  On that stand ``process`` (a fresh fork for each
invocation) and ``warm`` (a few long-lived forks with many invocations in each); ``inline`` is the
platform's own process, for breakpoints.  ``restarting`` is any of them across deaths of the zygote.

Isolate side: ``zygote`` puts on the guards (``guard``), imports the Worker (``forked``) and forks;
``turns`` is a fork's event loop, ``shared`` the one for many invocations; ``inside`` serves one
invocation.  ``senses`` are its time and chance, ``namespace`` its modules where the process is not
fresh, ``shared_state`` what is watched there; ``rehearsal`` makes forks cheap.

Roads tried and dropped: forking isolates from the platform itself (a fork of a process that has
threads or the database engine loaded hangs, and drags the platform's memory along); CPython on
WebAssembly (3.6 ms an invocation against 1 ms for a fork); sub-interpreters (no memory or CPU
limit of their own, a segfault takes all).
"""
