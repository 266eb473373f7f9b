"""Kernel sandbox for processes that run untrusted input: worker code, SQL.

``landlock`` restricts file access, ``seccomp`` restricts system calls.  Both need no privilege, are
inherited by every fork and cannot be lifted.  Nothing here imports the rest of edgesim, because
isolates load it.

Tried and dropped: the packages ``landlock`` (a development release years old) and ``pyseccomp``
(needs libseccomp on the machine); edgesim needs only a table and three system calls.
"""
