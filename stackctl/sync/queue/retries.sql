-- What failed to reach an external database, kept per (tenancy, database, mapping), so that one that fails neither
-- holds up the others nor is forgotten. mapping '': the database as a whole. No row: the last attempt went well.
-- next_attempt_at null: a dead letter.

-- name: list_failures
SELECT tenancy_id, database_id, attempts, failing_since, last_error, last_error_code, next_attempt_at,
       nullif(mapping, '')
FROM stackctl.delivery ORDER BY failing_since, tenancy_id, database_id, mapping

-- name: find_failure
-- The one that counts most: of the database as a whole before those of its mappings.
SELECT tenancy_id, database_id, attempts, failing_since, last_error, last_error_code, next_attempt_at,
       nullif(mapping, '')
FROM stackctl.delivery WHERE tenancy_id = %(tenancy)s AND database_id = %(database)s
ORDER BY mapping <> '', last_error_code = 'rows-refused', failing_since LIMIT 1

-- name: record_failure
INSERT INTO stackctl.delivery AS d
    (tenancy_id, database_id, mapping, attempts, failing_since, last_attempt_at, last_error, last_error_code,
     next_attempt_at)
VALUES (%(tenancy)s, %(database)s, %(mapping)s, 1, clock_timestamp(), clock_timestamp(), %(error)s, %(code)s,
        clock_timestamp() + %(delay)s::interval)
ON CONFLICT (tenancy_id, database_id, mapping) DO UPDATE
SET last_attempt_at = EXCLUDED.last_attempt_at, last_error = EXCLUDED.last_error,
    last_error_code = EXCLUDED.last_error_code,
    (attempts, next_attempt_at) = (
        SELECT CASE WHEN kept THEN d.attempts ELSE counted + 1 END,
               CASE WHEN kept THEN d.next_attempt_at WHEN counted + 1 < %(limit)s THEN
                   clock_timestamp()
                   + least(%(delay)s::interval * power(2, least(counted, 20)), %(longest)s::interval) END
        FROM (SELECT EXCLUDED.last_error_code = 'rows-refused' AND d.last_error_code = 'rows-refused'
                         AND NOT %(scheduled)s AS kept,
                     -- What failed before is over when all but some rows went through.
                     CASE WHEN EXCLUDED.last_error_code = 'rows-refused' AND d.last_error_code <> 'rows-refused'
                          THEN 0 ELSE d.attempts END AS counted) AS decided)
RETURNING next_attempt_at IS NULL

-- name: defer_attempt
UPDATE stackctl.delivery
SET next_attempt_at = CASE WHEN %(wait)s::interval IS NOT NULL AND next_attempt_at IS NOT NULL
                           THEN greatest(next_attempt_at, clock_timestamp() + %(wait)s::interval) END
WHERE tenancy_id = %(tenancy)s AND database_id = %(database)s AND mapping = ''

-- name: record_no_answer
INSERT INTO stackctl.delivery AS d
    (tenancy_id, database_id, attempts, failing_since, last_attempt_at, last_error, last_error_code, next_attempt_at)
VALUES (%(tenancy)s, %(database)s, 0, clock_timestamp(), clock_timestamp(), 'no answer yet', 'no-answer',
        clock_timestamp() + %(lease)s::interval)
ON CONFLICT (tenancy_id, database_id, mapping) DO UPDATE
SET last_attempt_at = EXCLUDED.last_attempt_at, next_attempt_at = EXCLUDED.next_attempt_at,
    last_error = EXCLUDED.last_error, last_error_code = EXCLUDED.last_error_code

-- name: record_success
-- In one order: two that record the same database meet at the first row.
WITH over AS (
    SELECT mapping FROM stackctl.delivery
    WHERE tenancy_id = %(tenancy)s AND database_id = %(database)s
      AND (%(everything)s OR mapping = ANY (%(mappings)s::text[]))
      AND (%(rejections)s OR last_error_code <> 'rows-refused')
    ORDER BY mapping FOR UPDATE
)
DELETE FROM stackctl.delivery AS d USING over
WHERE tenancy_id = %(tenancy)s AND database_id = %(database)s AND d.mapping = over.mapping

-- name: forget_failures
DELETE FROM stackctl.delivery
WHERE %(everything)s OR (tenancy_id, database_id) IN (SELECT * FROM unnest(%(tenancies)s::uuid[], %(databases)s::text[]))
RETURNING tenancy_id, database_id

-- name: retry_now
WITH chosen AS (
    SELECT tenancy_id, database_id, mapping FROM stackctl.delivery
    WHERE %(everything)s
       OR (tenancy_id, database_id) IN (SELECT * FROM unnest(%(tenancies)s::uuid[], %(databases)s::text[]))
    ORDER BY tenancy_id, database_id, mapping FOR UPDATE
), due AS (
    UPDATE stackctl.delivery AS d SET next_attempt_at = clock_timestamp(), attempts = 0 FROM chosen AS c
    WHERE d.tenancy_id = c.tenancy_id AND d.database_id = c.database_id AND d.mapping = c.mapping
    RETURNING d.tenancy_id, d.database_id
)
SELECT DISTINCT tenancy_id, database_id FROM due ORDER BY 1, 2

-- name: claim_sweep
INSERT INTO stackctl.sweep AS s (singleton, last_swept_at) VALUES (true, clock_timestamp())
ON CONFLICT (singleton) DO UPDATE SET last_swept_at = EXCLUDED.last_swept_at
WHERE s.last_swept_at NOT BETWEEN clock_timestamp() - %(interval)s::interval AND clock_timestamp()
RETURNING true
