"""``clickhouse://``: a ClickHouse server by its native protocol."""
