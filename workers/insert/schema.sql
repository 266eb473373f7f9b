-- Applied at start; safe to repeat.  For a current ClickHouse; schema-ledger.sql is for old ones.
--
-- The sort order puts similar rows side by side, by event, hour and player.  A million generated
-- events take a tenth of their NDJSON size (make bench prints it by column).

CREATE TABLE IF NOT EXISTS events
(
    event       LowCardinality(String),
    player_id   String                  CODEC(ZSTD(3)),
    ts          DateTime64(3, 'UTC')    CODEC(DoubleDelta, ZSTD(1)),
    match_id    String                  CODEC(ZSTD(3)),
    session_id  String                  CODEC(ZSTD(3)),
    platform    LowCardinality(String),
    region      LowCardinality(String),
    build       LowCardinality(String),
    props       String                  CODEC(ZSTD(6)), -- JSON text: JSONExtractInt(props, 'damage')
    inserted_at DateTime64(3, 'UTC')    DEFAULT now64(3) CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(ts)
ORDER BY (event, toStartOfHour(ts), player_id, ts)
-- The number of latest inserts whose deduplication tokens are kept.
SETTINGS non_replicated_deduplication_window = 100000;

CREATE TABLE IF NOT EXISTS ingest_errors
(
    received_at DateTime64(3, 'UTC'),
    worker      LowCardinality(String),
    reason      LowCardinality(String),
    detail      String CODEC(ZSTD(3)),
    raw         String CODEC(ZSTD(6)),
    ip          String CODEC(ZSTD(3)),
    user_agent  String CODEC(ZSTD(3)),
    country     LowCardinality(String),
    inserted_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (reason, received_at)
SETTINGS non_replicated_deduplication_window = 100000;

CREATE TABLE IF NOT EXISTS insert_failures
(
    failed_at   DateTime64(3, 'UTC') DEFAULT now64(3),
    queue       LowCardinality(String),
    message_id  String,
    bucket      LowCardinality(String),
    object      String CODEC(ZSTD(3)),
    attempts    UInt16,
    error       String CODEC(ZSTD(3))
)
ENGINE = MergeTree
ORDER BY failed_at
SETTINGS non_replicated_deduplication_window = 100000;

-- The most common queries.  Views hold no rows: they cost nothing until they are read.

CREATE VIEW IF NOT EXISTS events_per_minute AS
SELECT toStartOfMinute(ts) AS minute, count() AS events, uniq(player_id) AS players
FROM events GROUP BY minute;

CREATE VIEW IF NOT EXISTS events_per_type AS
SELECT event, count() AS events, uniq(player_id) AS players, min(ts) AS first, max(ts) AS last
FROM events GROUP BY event;

CREATE VIEW IF NOT EXISTS events_per_player AS
SELECT player_id, count() AS events, uniq(session_id) AS sessions, min(ts) AS first, max(ts) AS last
FROM events GROUP BY player_id;

-- Seconds from an event's own time to its insert, by the minute of the insert.
CREATE VIEW IF NOT EXISTS ingest_lag AS
SELECT
    toStartOfMinute(inserted_at) AS minute, count() AS events,
    quantile(0.5)(lag) AS p50, quantile(0.95)(lag) AS p95, max(lag) AS most
FROM (SELECT inserted_at, dateDiff('millisecond', ts, inserted_at) / 1000 AS lag FROM events)
GROUP BY minute;

-- Failures and failed objects by error.
CREATE VIEW IF NOT EXISTS failures_per_error AS
SELECT error, count() AS failures, uniq(bucket, object) AS objects, max(failed_at) AS last
FROM insert_failures GROUP BY error;
