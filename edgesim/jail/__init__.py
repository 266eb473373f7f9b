"""A jail of the kernel's, for processes that run what others wrote: worker code, SQL.

``landlock`` shuts the file system, ``seccomp`` the system calls; both need no privilege, are
inherited by every fork and cannot be taken off again.  Nothing here imports the rest of edgesim:
it is loaded into isolates.

Tried and dropped: the packages ``landlock`` (a development release years old) and ``pyseccomp``
(needs libseccomp on the machine): what is used of either is a table and three system calls.
"""
