"""``sqlite:`` and ``memory:``: queues in a SQLite database."""
