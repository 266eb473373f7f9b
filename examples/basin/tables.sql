-- The split of plays.sql once more, into Iceberg tables.
INSERT INTO good_table
SELECT player, score, at, coalesce(device.os, 'unknown') AS os
FROM plays
WHERE score BETWEEN 0 AND 100000 AND NOT json_get_bool(extra, 'modified');

INSERT INTO suspicious_table
SELECT
  player,
  score,
  at,
  CASE WHEN json_get_bool(extra, 'modified') THEN 'modified client' ELSE 'impossible score' END AS reason
FROM plays
WHERE score NOT BETWEEN 0 AND 100000 OR json_get_bool(extra, 'modified');
