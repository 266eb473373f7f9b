"""The tables of a queue store in SQLite, and the statements over them.

Each statement finds its rows by an index and has a limit, or touches only the rows passed to it.
"""

from __future__ import annotations

SCHEMA_VERSION = 1
PURGED_VERSION = 2
"""Like 1, after a purge; an earlier edgesim would not find messages under new names."""
SCHEMA = f"""
BEGIN;
CREATE TABLE message (
    seq INTEGER PRIMARY KEY,      -- order of arrival in the store
    id TEXT NOT NULL UNIQUE,
    queue TEXT NOT NULL,
    body BLOB NOT NULL,
    content_type TEXT NOT NULL,
    timestamp_ms INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    uncounted INTEGER NOT NULL DEFAULT 0,  -- of these: leases that are no attempts
    visible_at REAL NOT NULL,
    leased_until REAL,            -- NULL: not leased
    trace TEXT NOT NULL DEFAULT '' -- trace context of the producer
) STRICT;
CREATE INDEX message_visible ON message (queue, leased_until, visible_at);
CREATE INDEX message_age ON message (queue, timestamp_ms);
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""
COLUMNS = "SELECT name FROM pragma_table_info('message')"
ADDED = {
    "uncounted": "ALTER TABLE message ADD COLUMN uncounted INTEGER NOT NULL DEFAULT 0",
    "trace": "ALTER TABLE message ADD COLUMN trace TEXT NOT NULL DEFAULT ''",
}
"""Columns that a file of an earlier edgesim lacks; an earlier edgesim ignores them."""
# Not part of the schema's version: an earlier edgesim's file has no such table.
CLOCK = """
CREATE TABLE IF NOT EXISTS clock (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    unix REAL NOT NULL,
    boot TEXT NOT NULL,
    since_boot REAL NOT NULL,
    shift REAL NOT NULL
) STRICT"""
# A purge assigns its queue a new generation: messages of an earlier one are invisible at once.
GENERATION = """
CREATE TABLE IF NOT EXISTS generation (queue TEXT PRIMARY KEY, number INTEGER NOT NULL) STRICT"""
NOTE_PURGED = f"PRAGMA user_version = {PURGED_VERSION}"
READ_GENERATIONS = "SELECT queue, number FROM generation"
WRITE_GENERATION = "INSERT OR REPLACE INTO generation VALUES (?, ?)"
READ_MARK = "SELECT unix, boot, since_boot, shift FROM clock"
WRITE_MARK = "INSERT OR REPLACE INTO clock VALUES (1, ?, ?, ?, ?)"

SEND = """
INSERT INTO message (seq, id, queue, body, content_type, timestamp_ms, visible_at, trace)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
END_OLD_LEASES = """
UPDATE message SET leased_until = NULL WHERE seq IN (
    SELECT seq FROM message WHERE queue = ? AND leased_until <= ? LIMIT ?)"""
LEASED = "SELECT count(*) FROM message WHERE queue = ? AND leased_until IS NOT NULL"
# A lease id is the delivery and the message: "1:<id>" ends when "2:<id>" begins.
VISIBLE = """
SELECT seq, id, length(body), body, content_type, timestamp_ms,
    attempts + 1 - uncounted, (attempts + 1) || ':' || id, trace
FROM message WHERE queue = ? AND leased_until IS NULL AND visible_at <= ?
ORDER BY visible_at, seq LIMIT ?"""
SEQS = "seq IN (SELECT value FROM json_each(?))"
LEASE = f"UPDATE message SET leased_until = ?, attempts = attempts + 1 WHERE {SEQS}"
# The + keeps the planner from the queue index, which would scan the whole queue.
HELD = """
id IN (SELECT substr(value, instr(value, ':') + 1) FROM json_each(:leases))
AND attempts || ':' || id IN (SELECT value FROM json_each(:leases)) AND +queue = :queue"""
ACK = f"DELETE FROM message WHERE {HELD} RETURNING length(body)"
RELEASE = f"""
UPDATE message SET leased_until = NULL, visible_at = :visible_at, uncounted = uncounted + :uncounted
WHERE {HELD}"""
FIND_HELD = f"""
SELECT timestamp_ms, seq, length(body), leased_until FROM message WHERE {HELD} ORDER BY seq"""
# Ids may be reused while messages that had them are purged and not yet removed.
REMOVE_IDS = """
DELETE FROM message WHERE id IN (SELECT value FROM json_each(:ids))
AND +queue IN (SELECT value FROM json_each(:queues))"""
MOVE = f"""
UPDATE message
SET queue = ?, attempts = 0, uncounted = 0, leased_until = NULL, visible_at = ? WHERE {SEQS}"""
DELETE = f"DELETE FROM message WHERE {SEQS}"
OLDEST_FIRST = """
SELECT timestamp_ms, seq, length(body), leased_until FROM message
WHERE queue = ? AND (timestamp_ms, seq) > (?, ?) ORDER BY timestamp_ms, seq LIMIT ?"""
PEEK = """
SELECT timestamp_ms, seq, length(body), id, body, content_type, attempts - uncounted FROM message
WHERE queue = ? AND (timestamp_ms, seq) > (?, ?) ORDER BY timestamp_ms, seq LIMIT ?"""
OLDEST = "SELECT min(timestamp_ms) FROM message WHERE queue = ?"
NEXT_VISIBLE = "SELECT min(visible_at) FROM message WHERE queue = ? AND leased_until IS NULL"
STORED = """
SELECT timestamp_ms, seq, length(body), leased_until, queue
FROM message WHERE seq > ? ORDER BY seq LIMIT ?"""
UNLEASE = f"UPDATE message SET leased_until = NULL WHERE {SEQS}"
