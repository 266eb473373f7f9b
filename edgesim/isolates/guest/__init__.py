"""Isolate side: all of it runs in the Worker's own, jailed process.  It imports nothing of host."""
