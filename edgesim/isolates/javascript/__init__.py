"""JavaScript and TypeScript Workers, on workerd: one process of it for each Worker.

``tools`` finds workerd and esbuild, ``bundle`` builds a Worker's modules, ``settings`` writes
workerd's configuration, ``start`` starts it, ``launch`` jails it, ``process`` is one running
workerd, ``watch`` limits it, ``invocation`` is one invocation in it, ``driver`` the levels that the
runtime uses.  Requests go both ways over Unix sockets as plain HTTP (``http``, ``wires``), in turns
where time is virtual (``turns``).  ``guest`` holds the modules that run beside the Worker's own in
workerd, and turn its bindings into calls of the platform.

Tried and dropped: workerd's own R2 and queue bindings (their requests do not say which invocation
they belong to); one WebSocket for all invocations (they would share one context of I/O, which the
platform forbids); workerd's tails for traces (one more request for each invocation).
"""
