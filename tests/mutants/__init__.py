"""One-line faults of the product; the simulation or a named test must detect each."""
