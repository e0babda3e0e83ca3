-- What the engine asks the operated database besides the statements compiled from mappings.

-- name: read_last_sequence_id
SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM global_seq_id

-- name: read_position
SELECT CASE WHEN is_called THEN last_value ELSE 0 END,
       stackctl.source_identity(),
       (SELECT identity FROM stackctl.source_history ORDER BY id DESC LIMIT 1)
FROM global_seq_id

-- name: read_primary_position
-- The end of all records, and not of those written out: a commit that does not wait for the disk is visible before. At the
-- end of a page the server names the place behind the next page's header, which no replay reaches before a record does.
SELECT (here - CASE WHEN beyond IN (24, 40) THEN beyond ELSE 0 END)::text, pg_is_in_recovery()
FROM (SELECT pg_current_wal_insert_lsn()) AS end_of_log (here),
     mod(here - '0/0', current_setting('wal_block_size')::int) AS beyond

-- name: flush_log
-- What no commit waits for, such as the clearing of old rows, stays in memory until something else is written: on an idle
-- primary for many seconds. A commit that has written something writes out all that is before it.
SELECT set_config('synchronous_commit', 'local', true), pg_logical_emit_message(true, 'stackctl', '')

-- name: has_replayed
SELECT pg_last_wal_replay_lsn() >= %(position)s::pg_lsn OR NOT pg_is_in_recovery()

-- name: plan_for_all
-- For a statement that reads everything: on tables that were filled and never analysed, a nested loop would be
-- quadratic; and a hundred thousand rows are joined without files on the disk.
SELECT set_config('enable_nestloop', 'off', true),
       set_config('work_mem', greatest(pg_size_bytes(current_setting('work_mem')) / 1024, 32768) || 'kB', true)
