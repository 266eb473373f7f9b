"""Sinks: one file for each window of a stream."""
