"""Faults that only a replay can inject: of isolates, the disk and the whole platform."""
