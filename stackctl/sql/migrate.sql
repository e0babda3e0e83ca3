-- name: session_facts
SELECT pg_is_in_recovery() AS standby,
       current_setting('default_transaction_read_only')::boolean AS read_only,
       current_database() AS database,
       session_user::text AS role

-- name: session_settings
SELECT name, setting FROM pg_settings WHERE source = 'session'

-- name: set_setting
SELECT set_config(%(name)s, %(value)s, false)

-- name: try_lock
SELECT pg_try_advisory_lock(hashtextextended('stackctl.migrate:' || %(schema)s, 0))

-- name: unlock
SELECT pg_advisory_unlock(hashtextextended('stackctl.migrate:' || %(schema)s, 0))

-- name: lock_setup
SELECT pg_advisory_xact_lock(hashtextextended('stackctl.migrate', 0))

-- name: lock_holder
SELECT l.pid, coalesce(a.application_name, '') AS application_name, a.backend_start AS since
FROM pg_locks AS l
LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND ((l.classid::bigint << 32) | l.objid::bigint) = hashtextextended('stackctl.migrate:' || %(schema)s, 0)

-- name: history_exists
SELECT EXISTS (
  SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
  WHERE n.nspname = 'stackctl' AND c.relname = 'migration_history'
)

-- name: create_history_schema
CREATE SCHEMA IF NOT EXISTS stackctl

-- name: create_history
CREATE TABLE IF NOT EXISTS stackctl.migration_history (
  target_schema text NOT NULL,
  name text NOT NULL,
  checksum text NOT NULL,             -- of the pieces applied so far; of the whole file once it is applied
  started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  applied_at timestamptz,             -- null: begun, and committed as far as pieces_done says
  applied_by text NOT NULL DEFAULT session_user,
  duration_ms bigint NOT NULL DEFAULT 0,
  repeats integer NOT NULL DEFAULT 0,
  pieces_done integer NOT NULL,
  outside_piece integer,              -- the piece that was running outside a transaction, if one was
  PRIMARY KEY (target_schema, name)
)

-- name: share_history
GRANT USAGE ON SCHEMA stackctl TO PUBLIC;
GRANT SELECT ON stackctl.migration_history TO PUBLIC

-- name: schema_exists
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %(schema)s)

-- name: history
SELECT name, checksum, applied_at, applied_by, repeats, pieces_done, outside_piece
FROM stackctl.migration_history
WHERE target_schema = %(schema)s
ORDER BY name COLLATE "C"

-- name: record
INSERT INTO stackctl.migration_history AS h
  (target_schema, name, checksum, applied_at, duration_ms, repeats, pieces_done, outside_piece)
VALUES (%(schema)s, %(name)s, %(checksum)s, CASE WHEN %(applied)s THEN clock_timestamp() END,
        %(duration_ms)s, %(repeats)s, %(pieces_done)s, %(outside_piece)s)
ON CONFLICT (target_schema, name) DO UPDATE
SET checksum = EXCLUDED.checksum, applied_at = EXCLUDED.applied_at, applied_by = session_user,
    duration_ms = EXCLUDED.duration_ms, repeats = EXCLUDED.repeats, pieces_done = EXCLUDED.pieces_done,
    outside_piece = EXCLUDED.outside_piece

-- name: forget_attempt
UPDATE stackctl.migration_history SET outside_piece = NULL WHERE target_schema = %(schema)s AND name = %(name)s

-- name: record_for_backend
INSERT INTO {} ("migrationName", "finishedAt") VALUES (%(name)s, now() AT TIME ZONE 'UTC') ON CONFLICT DO NOTHING

-- name: backend_history_exists
SELECT EXISTS (
  SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
  WHERE n.nspname = %(schema)s AND c.relname = 'SchemaMigration' AND c.relkind IN ('r', 'p')
)

-- name: invalid_index
SELECT n.nspname, c.relname
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE i.indrelid = to_regclass(%(table)s) AND c.relname = %(index)s AND NOT i.indisvalid
