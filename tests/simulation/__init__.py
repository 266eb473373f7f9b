"""Random traffic over the Workers of this repository, random faults, then calm; `make sim`."""
