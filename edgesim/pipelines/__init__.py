"""Pipelines: records in, one object for each window out.

``pipeline`` is what a Worker holds; ``log`` is the write-ahead log that makes ``send`` safe.
"""
