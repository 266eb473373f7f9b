"""A module that only a function imports."""

seen = []
