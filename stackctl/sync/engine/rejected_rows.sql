-- Rows that one external database rejects (poison rows), by key. Written before the cursor passes them.

-- name: record_row
INSERT INTO stackctl.refused_row (tenancy_id, database_id, mapping, key, sequence_id, error)
VALUES (%(tenancy)s, %(database)s, %(mapping)s, %(key)s, %(sequence_id)s, %(error)s)
ON CONFLICT (tenancy_id, database_id, mapping, key) DO UPDATE
SET sequence_id = EXCLUDED.sequence_id, error = EXCLUDED.error

-- name: list_rows
SELECT mapping, key, error, refused_at FROM stackctl.refused_row
WHERE tenancy_id = %(tenancy)s AND database_id = %(database)s
ORDER BY mapping, refused_at, key

-- name: list_rows_by_tenancy
SELECT tenancy_id, database_id, mapping, key, error, refused_at FROM stackctl.refused_row
WHERE %(tenancy)s::uuid IS NULL OR tenancy_id = %(tenancy)s
ORDER BY tenancy_id, database_id, mapping, refused_at, key
LIMIT 10000

-- name: claim_retries
-- The rows to try again now: not those that were tried a moment ago.
UPDATE stackctl.refused_row SET tried_at = clock_timestamp()
WHERE tenancy_id = %(tenancy)s AND database_id = %(database)s AND mapping = %(mapping)s
  AND tried_at NOT BETWEEN clock_timestamp() - %(pause)s::interval AND clock_timestamp()
RETURNING key

-- name: read_versions
-- xmin changes whenever anybody records or claims the row.
SELECT key, xmin::text FROM stackctl.refused_row
WHERE tenancy_id = %(tenancy)s AND database_id = %(database)s AND mapping = %(mapping)s
  AND (%(keys)s::jsonb IS NULL OR key IN (SELECT value FROM jsonb_array_elements(%(keys)s::jsonb)))

-- name: forget_rows
DELETE FROM stackctl.refused_row
WHERE tenancy_id = %(tenancy)s AND database_id = %(database)s AND mapping = %(mapping)s
  AND (key, xmin::text) IN (SELECT value -> 0, value ->> 1 FROM jsonb_array_elements(%(versions)s))
