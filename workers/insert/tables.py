"""Which bucket's objects become rows of which table, and by what statement."""

from urllib.parse import urlencode

CLICKHOUSE = "http://clickhouse/"

# ts is milliseconds in the events and a DateTime64 in the tables, which would read it as seconds.
_EVENTS = """
INSERT INTO events
    (event, player_id, ts, match_id, session_id, platform, region, build, props)
SELECT
    event, player_id, fromUnixTimestamp64Milli(ts, 'UTC') AS ts,
    match_id, session_id, platform, region, build, props
FROM input('event String, player_id String, ts Int64, match_id String, session_id String,
            platform String, region String, build String, props String')
FORMAT JSONEachRow
"""
_ERRORS = """
INSERT INTO ingest_errors
    (received_at, worker, reason, detail, raw, ip, user_agent, country)
SELECT
    fromUnixTimestamp64Milli(received_at, 'UTC') AS received_at,
    worker, reason, detail, raw, ip, user_agent, country
FROM input('received_at Int64, worker String, reason String, detail String, raw String, ip String,
            user_agent String, country String')
FORMAT JSONEachRow
"""

# Bucket -> (name of its binding, statement).
TABLES = {"events": ("EVENTS", _EVENTS), "errors": ("ERRORS", _ERRORS)}


def insert_url(statement, token):
    """Where to POST an object: ClickHouse drops an insert whose token it has seen."""
    return (
        CLICKHOUSE
        + "?"
        + urlencode(
            {
                "query": " ".join(statement.split()),
                "insert_deduplication_token": token,
                "input_format_skip_unknown_fields": "1",
                # One client with a broken clock must not make the whole object uninsertable: events
                # of more than 100 months in one insert are refused by default.
                "max_partitions_per_insert_block": "0",
            }
        )
    )


def failure_url():
    """Where to POST rows of insert_failures."""
    statement = "INSERT INTO insert_failures FORMAT JSONEachRow"
    return CLICKHOUSE + "?" + urlencode({"query": statement})


def backoff(attempts, base, cap, chance):
    """Seconds before the next delivery: exponential with full jitter, ``chance`` in [0, 1)."""
    return max(1, round(chance * min(cap, base * 2 ** (min(attempts, 32) - 1))))
