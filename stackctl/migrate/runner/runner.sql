-- name: read_session_facts
SELECT pg_is_in_recovery() AS standby,
       current_setting('default_transaction_read_only')::boolean AS read_only,
       current_database() AS database,
       session_user::text AS role

-- name: read_session_settings
SELECT name, setting FROM pg_settings WHERE source = 'session'

-- name: reset_role
RESET SESSION AUTHORIZATION;
RESET ROLE

-- name: reset_session
RESET SESSION AUTHORIZATION;
RESET ROLE;
RESET ALL;
DISCARD TEMP;
CLOSE ALL;
UNLISTEN *;
DEALLOCATE ALL

-- name: set_settings
SELECT count(set_config(name, value, false)) AS done FROM unnest(%(names)s::text[], %(values)s::text[]) AS given (name, value)

-- name: get_setting
SELECT setting AS value FROM pg_settings WHERE name = %(name)s

-- name: set_search_path
-- Behind the schema comes what is set up for the role in this database, the role, or the database: the first of them.
SELECT set_config('search_path', concat_ws(', ', %(own)s, (
  SELECT substr(entry, length('search_path=') + 1)
  FROM pg_db_role_setting AS s, unnest(s.setconfig) AS entry
  WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
    AND s.setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = session_user)) AND entry LIKE 'search_path=%%'
  ORDER BY s.setrole = 0, s.setdatabase = 0
  LIMIT 1
)), false)

-- name: try_lock
-- Of the schema's runner, unless the key of another lock is given.
SELECT pg_try_advisory_lock(coalesce(%(key)s::bigint, hashtextextended('stackctl.migrate:' || %(schema)s, 0)))

-- name: unlock
SELECT pg_advisory_unlock(coalesce(%(key)s::bigint, hashtextextended('stackctl.migrate:' || %(schema)s, 0)))

-- name: holds_lock
SELECT EXISTS (
  SELECT FROM pg_locks
  WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND pid = pg_backend_pid()
    AND ((classid::bigint << 32) | objid::bigint) = hashtextextended('stackctl.migrate:' || %(schema)s, 0)
) AS held

-- name: require_lock
-- An error where holds_lock would say no, so that nothing that was sent behind it is run.
SELECT CASE WHEN EXISTS (
  SELECT FROM pg_locks
  WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND pid = pg_backend_pid()
    AND ((classid::bigint << 32) | objid::bigint) = hashtextextended('stackctl.migrate:' || %(schema)s, 0)
) THEN true ELSE ('not held by ' || pg_backend_pid())::boolean END

-- name: lock_history
SELECT pg_advisory_xact_lock(hashtextextended('stackctl.migrate', 0))

-- name: find_lock_holder
SELECT l.pid, coalesce(a.application_name, '') AS application_name, a.backend_start AS since, a.state,
       left(a.query, 200) AS query, p.phase AS building
FROM pg_locks AS l
LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
LEFT JOIN pg_stat_progress_create_index AS p ON p.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND ((l.classid::bigint << 32) | l.objid::bigint) = coalesce(%(key)s::bigint, hashtextextended('stackctl.migrate:' || %(schema)s, 0))

-- name: find_blockers
-- Sessions that hold a relation in a mode against the one wanted; for an old snapshot, whoever has a transaction open.
WITH wanted AS (
  SELECT to_regclass(name) AS relation, against FROM unnest(%(names)s::text[], %(against)s::text[]) AS given (name, against)
), held AS (
  SELECT DISTINCT ON (l.pid) l.pid, l.relation::regclass::text AS relation, l.mode
  FROM pg_locks AS l JOIN wanted AS w ON w.relation = l.relation
  WHERE l.granted AND l.locktype = 'relation' AND l.pid <> pg_backend_pid() AND l.mode = ANY (w.against::text[])
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  ORDER BY l.pid
), open AS (
  SELECT a.pid, coalesce(a.application_name, '') AS application_name, coalesce(a.usename, '') AS role, a.state,
         extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS open_s, left(a.query, 200) AS query,
         h.relation, h.mode
  FROM pg_stat_activity AS a LEFT JOIN held AS h ON h.pid = a.pid
  WHERE a.pid <> pg_backend_pid() AND a.datname = current_database()
    AND (h.pid IS NOT NULL OR a.xact_start IS NOT NULL)
)
SELECT * FROM open
WHERE relation IS NOT NULL OR %(any)s OR NOT EXISTS (SELECT FROM held)
ORDER BY relation IS NULL, open_s DESC NULLS LAST
LIMIT 5

-- name: count_changed_rows
SELECT current_setting('track_counts')::boolean AS counted, coalesce(sum(ins + upd + del), 0)::bigint AS rows,
       coalesce(sum(upd), 0)::bigint AS updates, coalesce(sum(live) FILTER (WHERE upd > 0), 0)::bigint AS live
FROM (
  SELECT pg_stat_get_xact_tuples_inserted(c.oid) AS ins, pg_stat_get_xact_tuples_updated(c.oid) AS upd,
         pg_stat_get_xact_tuples_deleted(c.oid) AS del, greatest(c.reltuples, pg_stat_get_live_tuples(c.oid)) AS live
  FROM pg_class AS c WHERE c.relkind = 'r' AND c.oid >= 16384  -- the catalogs come before
) AS counted

-- name: describe_history
-- What has the name, and its columns: those with their types, and those that must be given.
SELECT c.relkind::text AS kind, pg_get_userbyid(c.relowner)::text AS owner, current_user::text AS role,
       has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
         AND has_table_privilege(c.oid, 'UPDATE') AS writable,
       has_table_privilege(c.oid, 'DELETE') AS deletable,
       (SELECT coalesce(json_object_agg(a.attname, format_type(a.atttypid, a.atttypmod)), '{}')
        FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS types,
       ARRAY(SELECT a.attname::text FROM pg_attribute AS a
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull AND NOT a.atthasdef
               AND a.attidentity = '' ORDER BY a.attnum) AS required,
       EXISTS (SELECT FROM pg_index AS i
               WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
                 AND ARRAY(SELECT a.attname::text FROM pg_attribute AS a
                           WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey::int2[]) ORDER BY 1)
                   = ARRAY['name', 'target_schema']) AS keyed
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'stackctl' AND c.relname = %(table)s

-- name: list_histories
SELECT c.relname::text AS name
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'stackctl' AND c.relname ~ '^migration_history(_[a-z][a-z0-9_]*)?$' AND c.relkind IN ('r', 'p')
  AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
ORDER BY c.relname COLLATE "C"

-- name: may_create
SELECT current_user::text AS role, current_database() AS database,
       has_database_privilege(current_database(), 'CREATE') AS in_database,
       coalesce((SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = %(schema)s), false) AS in_schema

-- name: create_history
CREATE TABLE IF NOT EXISTS {} (
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

-- name: grant_history_schema
GRANT USAGE ON SCHEMA stackctl TO PUBLIC

-- name: grant_history
GRANT SELECT ON {} TO PUBLIC

-- name: schema_exists
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %(schema)s)

-- name: read_history
SELECT name, checksum, applied_at, applied_by, repeats, pieces_done, outside_piece
FROM {}
WHERE target_schema = %(schema)s
ORDER BY name COLLATE "C"

-- name: record_progress
INSERT INTO {} AS h
  (target_schema, name, checksum, applied_at, duration_ms, repeats, pieces_done, outside_piece)
VALUES (%(schema)s, %(name)s, %(checksum)s, CASE WHEN %(applied)s THEN clock_timestamp() END,
        %(duration_ms)s, %(repeats)s, %(pieces_done)s, %(outside_piece)s)
ON CONFLICT (target_schema, name) DO UPDATE
SET checksum = EXCLUDED.checksum, applied_at = EXCLUDED.applied_at, applied_by = session_user,
    duration_ms = EXCLUDED.duration_ms, repeats = EXCLUDED.repeats, pieces_done = EXCLUDED.pieces_done,
    outside_piece = EXCLUDED.outside_piece

-- name: forget_attempt
UPDATE {} SET outside_piece = NULL WHERE target_schema = %(schema)s AND name = %(name)s

-- name: accept_edit
UPDATE {} SET checksum = %(checksum)s WHERE target_schema = %(schema)s AND name = %(name)s

-- name: forget
DELETE FROM {} WHERE target_schema = %(schema)s AND name = %(name)s

-- name: record_in_backend_history
INSERT INTO {} AS h ("migrationName", "finishedAt") VALUES (%(name)s, now() AT TIME ZONE 'UTC')
ON CONFLICT ("migrationName") DO UPDATE SET "finishedAt" = EXCLUDED."finishedAt" WHERE h."finishedAt" IS NULL

-- name: is_in_backend_history
SELECT 1 AS found FROM {} WHERE "migrationName" = %(name)s AND "finishedAt" IS NOT NULL

-- name: record_in_prisma_history
-- As `prisma migrate resolve --applied` does.
INSERT INTO {} (id, checksum, migration_name, started_at, finished_at, applied_steps_count)
VALUES (gen_random_uuid()::text, %(checksum)s, %(name)s, now(), now(), 1)

-- name: is_in_prisma_history
SELECT 1 AS found FROM {} WHERE migration_name = %(name)s AND finished_at IS NOT NULL AND rolled_back_at IS NULL

-- name: find_invalid_indexes
-- Of one table (or of the table of an index), or of a schema; who is building it, if that is going on.
SELECT n.nspname AS schema, c.relname AS index, t.oid::regclass::text AS table,
       (SELECT p.pid FROM pg_stat_progress_create_index AS p
        WHERE p.index_relid = i.indexrelid OR (p.command LIKE 'REINDEX%%' AND p.relid = i.indrelid) LIMIT 1) AS builder
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid
JOIN pg_class AS t ON t.oid = i.indrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE NOT i.indisvalid AND c.relkind = 'i'
  AND (i.indrelid = to_regclass(%(relation)s) OR n.nspname = %(in_schema)s
       OR i.indrelid = (SELECT x.indrelid FROM pg_index AS x WHERE x.indexrelid = to_regclass(%(relation)s)))
  AND (%(index)s::text IS NULL OR c.relname = %(index)s)
  AND (%(pattern)s::text IS NULL OR c.relname ~ %(pattern)s)
ORDER BY 1, 2

-- name: is_index_built
SELECT EXISTS (
  SELECT FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
  WHERE i.indrelid = to_regclass(%(relation)s) AND c.relname = %(index)s AND i.indisvalid
) AS built

-- name: find_pending_detach
SELECT i.inhparent::regclass::text AS parent
FROM pg_inherits AS i WHERE i.inhdetachpending AND i.inhrelid = to_regclass(%(partition)s)

-- name: find_other_runners
SELECT c.relname AS name
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname IN ('SchemaMigration', '_prisma_migrations') AND c.relkind IN ('r', 'p')

-- name: record_adopted
INSERT INTO {} (target_schema, name, checksum, applied_at, pieces_done)
SELECT %(schema)s, name, checksum, coalesce(finished_at, clock_timestamp()), pieces
FROM unnest(%(names)s::text[], %(checksums)s::text[], %(finished)s::timestamptz[], %(pieces)s::int[])
  AS given (name, checksum, finished_at, pieces)
ON CONFLICT (target_schema, name) DO UPDATE
SET checksum = EXCLUDED.checksum, applied_at = EXCLUDED.applied_at, applied_by = session_user,
    pieces_done = EXCLUDED.pieces_done, outside_piece = NULL

-- name: read_columns
SELECT n.nspname AS schema, c.relname AS table, array_agg(a.attname::text) FILTER (WHERE a.attnum > 0 AND NOT a.attisdropped) AS columns
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid
WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
GROUP BY 1, 2
