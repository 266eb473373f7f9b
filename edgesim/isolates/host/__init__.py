"""Platform side of the isolates: drivers of the isolation levels, and their processes."""
