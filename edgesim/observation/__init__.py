"""Observation of a running project: recent invocations, and the search for one event.

``recent`` keeps traces and streams them to readers; ``locate`` finds every place that holds an
event.  Neither adds work to an invocation beyond one entry in a bounded list.
"""
