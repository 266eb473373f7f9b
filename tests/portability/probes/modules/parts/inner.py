"""An own module."""

WHERE = "own"
