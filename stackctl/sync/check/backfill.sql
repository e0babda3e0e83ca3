-- How far backfills have come.

-- name: read_progress
SELECT position, up_to_sequence_id, rows_sent FROM stackctl.backfill
WHERE tenancy_id = %(tenancy)s AND database_id = %(database)s AND mapping = %(mapping)s

-- name: record_progress
INSERT INTO stackctl.backfill (tenancy_id, database_id, mapping, position, up_to_sequence_id, rows_sent)
VALUES (%(tenancy)s, %(database)s, %(mapping)s, %(position)s, %(up_to)s, %(rows)s)
ON CONFLICT (tenancy_id, database_id, mapping) DO UPDATE
SET position = EXCLUDED.position, up_to_sequence_id = EXCLUDED.up_to_sequence_id, rows_sent = EXCLUDED.rows_sent,
    updated_at = clock_timestamp()

-- name: forget_progress
DELETE FROM stackctl.backfill
WHERE tenancy_id = %(tenancy)s AND database_id = %(database)s AND mapping = %(mapping)s
