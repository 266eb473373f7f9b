CREATE TABLE IF NOT EXISTS good
(
    player String,
    score  Int64,
    at     DateTime64(3, 'UTC'),
    os     LowCardinality(String)
)
ENGINE = MergeTree ORDER BY (player, at)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS suspicious
(
    player String,
    score  Int64,
    at     DateTime64(3, 'UTC'),
    reason LowCardinality(String)
)
ENGINE = MergeTree ORDER BY (player, at)
SETTINGS non_replicated_deduplication_window = 1000;
