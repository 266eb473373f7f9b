"""ClickHouse: the gateway that Workers reach as a service, and the databases behind it.

``gateway`` speaks ClickHouse's HTTP interface, ``statements`` reads just enough SQL for that,
``driver`` is the seam; ``chdb`` is the embedded engine (in ``chdb_process``, a process of its own,
over ``wire``), ``native`` and ``http`` are a real server by its two protocols, ``formats`` writes
native rows as text, ``exceptions`` and ``compression`` are what they share.
"""
