-- A play is suspicious if nobody can have that score, or if the client says that it was changed.
INSERT INTO good
SELECT player, score, at, coalesce(device.os, 'unknown') AS os
FROM plays
WHERE score BETWEEN 0 AND 100000 AND NOT json_get_bool(extra, 'modified');

INSERT INTO suspicious
SELECT
  player,
  score,
  at,
  CASE WHEN json_get_bool(extra, 'modified') THEN 'modified client' ELSE 'impossible score' END AS reason
FROM plays
WHERE score NOT BETWEEN 0 AND 100000 OR json_get_bool(extra, 'modified');
