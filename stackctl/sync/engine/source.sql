-- What the engine asks the operated database besides the statements compiled from mappings.

-- name: read_last_sequence_id
SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM global_seq_id

-- name: read_position
SELECT CASE WHEN is_called THEN last_value ELSE 0 END,
       stackctl.source_identity(),
       (SELECT identity FROM stackctl.source_history ORDER BY id DESC LIMIT 1)
FROM global_seq_id

-- name: read_primary_position
SELECT pg_current_wal_lsn()::text, pg_is_in_recovery()

-- name: has_replayed
SELECT pg_last_wal_replay_lsn() >= %(position)s::pg_lsn OR NOT pg_is_in_recovery()
