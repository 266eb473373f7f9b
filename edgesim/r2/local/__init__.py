"""``file:`` and ``memory:``: objects on this machine, metadata in SQLite and bytes in blobs."""
