"""Random traffic over this repository's Workers, random faults, then no faults; `make sim`."""
