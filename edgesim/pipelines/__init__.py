"""Pipelines: records in, one object for each window out.

``pipeline`` implements a Worker's binding; ``log`` is the write-ahead log that makes ``send``
durable.
"""
