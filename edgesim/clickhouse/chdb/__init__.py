"""``chdb:``: the embedded ClickHouse engine, in a process of its own."""
