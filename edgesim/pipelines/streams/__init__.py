"""Streams: records in, a durable buffer, and the windows of it that pipelines read.

``rows`` applies a stream's schema, ``stream`` buffers what fits, ``reader`` hands one window after
another to a sink, and ``positions`` remembers which windows are stored.
"""
