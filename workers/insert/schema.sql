-- Applied at start; safe to repeat.  For a current ClickHouse.

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
    props       String                  CODEC(ZSTD(6)), -- raw JSON: JSONExtractInt(props, 'damage')
    inserted_at DateTime('UTC') DEFAULT now() CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(ts)
ORDER BY (event, toStartOfHour(ts), player_id, ts)
-- How many inserts back a repeated one is recognised by its token.
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
    inserted_at DateTime('UTC') DEFAULT now()
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
