"""ClickHouse: the gateway that Workers reach as a service, and its database drivers.

``gateway`` implements ClickHouse's HTTP interface, ``statements`` parses just enough SQL for it,
``driver`` is the interface of drivers.  ``chdb`` is the embedded engine (it runs in the separate
process ``chdb_process``, reached over ``wire``); ``native`` and ``http`` connect to a server by its
two protocols.  ``formats`` writes native rows as text; ``exceptions`` and ``compression`` are
shared.
"""
