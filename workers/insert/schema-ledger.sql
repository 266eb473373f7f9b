-- For a ClickHouse without deduplication tokens, with DEDUPLICATION = "ledger" (see ledger.py).
-- Tried on 18.16: no CODEC, no DateTime64, LowCardinality only as an experiment.  Applied at start;
-- safe to repeat.

CREATE TABLE IF NOT EXISTS events
(
    object      String,                 -- source of the row: bucket/key@version
    event       String,
    player_id   String,
    ts          DateTime('UTC'),
    ts_ms       UInt16,                 -- milliseconds within the second
    match_id    String,
    session_id  String,
    platform    String,
    region      String,
    build       String,
    props       String,
    inserted_at DateTime('UTC') DEFAULT now()
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(ts)
ORDER BY (event, toStartOfHour(ts), player_id, ts);

CREATE TABLE IF NOT EXISTS ingest_errors
(
    object         String,
    received_at    DateTime('UTC'),
    received_at_ms UInt16,
    worker         String,
    reason         String,
    detail         String,
    raw            String,
    ip             String,
    user_agent     String,
    country        String,
    inserted_at    DateTime('UTC') DEFAULT now()
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (reason, received_at);

CREATE TABLE IF NOT EXISTS insert_failures
(
    failed_at  DateTime('UTC') DEFAULT now(),
    queue      String,
    message_id String,
    bucket     String,
    object     String,
    attempts   UInt16,
    error      String
)
ENGINE = MergeTree
PARTITION BY tuple()
ORDER BY failed_at;

CREATE TABLE IF NOT EXISTS insert_ledger
(
    object      String,
    inserted_at DateTime('UTC') DEFAULT now()
)
ENGINE = MergeTree
PARTITION BY tuple()
ORDER BY object;
