"""One-line faults of the product, each of which the simulation or a named test must notice."""
