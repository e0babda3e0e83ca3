-- In which place the operated database lives (see migrations/…_source_history.sql), and what it knew when it came there.

-- name: read_place
SELECT stackctl.source_identity() AS identity,
       (SELECT identity FROM stackctl.source_history ORDER BY id DESC LIMIT 1) AS noticed

-- name: lock_history
SELECT pg_advisory_xact_lock(hashtextextended('stackctl.source', 0))

-- name: read_highest_stamp
SELECT max("sequenceId") FROM {}

-- name: read_highest_logged
SELECT max(up_to_sequence_id) FROM stackctl.stamp_log

-- name: add_place
INSERT INTO stackctl.source_history (id, identity, last_sequence_id)
SELECT (SELECT coalesce(max(id), 0) + 1 FROM stackctl.source_history), %(identity)s, coalesce(max(highest), 0) FROM ({}) AS known (highest)

-- name: find_last_common_id
-- The lowest over all moves since: what a later one lost counts, too. No row: never heard of that place.
SELECT (SELECT min(last_sequence_id) FROM stackctl.source_history WHERE id > place.id)
FROM (SELECT max(id) AS id FROM stackctl.source_history WHERE identity = %(identity)s) AS place
WHERE place.id IS NOT NULL
