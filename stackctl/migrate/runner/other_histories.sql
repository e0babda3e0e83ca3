-- name: find_tables
-- Tables of the schema that are called as some tool calls its history, with the columns that tell which.
SELECT n.nspname AS schema, c.relname AS name, array_agg(a.attname::text) AS columns
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE n.nspname IN (%(schema)s, 'sqitch') AND c.relname = ANY (%(names)s) AND c.relkind IN ('r', 'p')
GROUP BY 1, 2

-- name: read_backend
SELECT "migrationName" AS key, "finishedAt" AT TIME ZONE 'UTC' AS at, true AS done
FROM {} WHERE "finishedAt" IS NOT NULL ORDER BY 1

-- name: read_prisma
SELECT migration_name AS key, max(finished_at) AS at, bool_or(finished_at IS NOT NULL) AS done
FROM {} WHERE rolled_back_at IS NULL GROUP BY 1 ORDER BY 1

-- name: read_versions
SELECT version::text AS key, NULL::timestamptz AS at, true AS done FROM {} ORDER BY 1

-- name: read_golang_migrate
SELECT version::text AS key, NULL::timestamptz AS at, NOT dirty AS done FROM {}

-- name: read_goose
-- The last word on each version; 0 is the table's own beginning.
SELECT key, at, true AS done
FROM (
  SELECT DISTINCT ON (version_id) version_id::text AS key, tstamp::timestamptz AS at, is_applied
  FROM {} WHERE version_id > 0 ORDER BY version_id, id DESC
) AS latest
WHERE is_applied

-- name: read_flyway
-- The last word on each version, which may be that it was undone.
SELECT key, at, done
FROM (
  SELECT DISTINCT ON (version) version AS key, installed_on::timestamptz AS at, success AS done, type
  FROM {} WHERE version IS NOT NULL ORDER BY version, installed_rank DESC
) AS latest
WHERE type NOT LIKE 'UNDO%%'

-- name: read_node_pg_migrate
SELECT name AS key, run_on::timestamptz AS at, true AS done FROM {} ORDER BY 1

-- name: read_sql_migrate
SELECT id AS key, applied_at AS at, true AS done FROM {} ORDER BY 1

-- name: read_nothing
SELECT NULL::text AS key, NULL::timestamptz AS at, true AS done FROM {} WHERE false
