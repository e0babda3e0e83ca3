-- What failed to reach an external database, kept per (tenancy, database), so that one failing database neither
-- holds up the others nor is forgotten. No row: the last attempt went well. next_attempt_at null: a dead letter.

-- name: list_failures
SELECT tenancy_id, database_id, attempts, failing_since, last_error, last_error_code, next_attempt_at
FROM stackctl.delivery ORDER BY failing_since, tenancy_id, database_id

-- name: find_failure
SELECT tenancy_id, database_id, attempts, failing_since, last_error, last_error_code, next_attempt_at
FROM stackctl.delivery WHERE tenancy_id = %(tenancy)s AND database_id = %(database)s

-- name: list_databases_in_backoff
SELECT database_id FROM stackctl.delivery
WHERE tenancy_id = %(tenancy)s AND next_attempt_at > clock_timestamp() AND last_error_code <> 'rows-refused'

-- name: claim_due
-- The next attempt is pushed out by the lease first: whoever is killed during the attempt leaves it due again.
UPDATE stackctl.delivery AS d SET next_attempt_at = clock_timestamp() + %(lease)s::interval
FROM (
    SELECT tenancy_id, database_id FROM stackctl.delivery
    WHERE next_attempt_at <= clock_timestamp() AND tenancy_id <> ALL (%(busy)s::uuid[])
    ORDER BY next_attempt_at LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
) AS due
WHERE d.tenancy_id = due.tenancy_id AND d.database_id = due.database_id
RETURNING d.tenancy_id, d.database_id

-- name: record_failure
WITH before AS MATERIALIZED (
    SELECT last_error_code FROM stackctl.delivery
    WHERE tenancy_id = %(tenancy)s AND database_id = %(database)s FOR UPDATE
), recorded AS (
    INSERT INTO stackctl.delivery AS d
        (tenancy_id, database_id, attempts, failing_since, last_attempt_at, last_error, last_error_code,
         next_attempt_at)
    VALUES (%(tenancy)s, %(database)s, 1, clock_timestamp(), clock_timestamp(), %(error)s, %(code)s,
            clock_timestamp() + %(delay)s::interval)
    ON CONFLICT (tenancy_id, database_id) DO UPDATE
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
    RETURNING next_attempt_at IS NULL AS dead
)
SELECT dead, %(code)s = 'rows-refused' AND EXISTS (SELECT FROM before WHERE last_error_code <> 'rows-refused')
FROM recorded

-- name: record_no_answer
INSERT INTO stackctl.delivery AS d
    (tenancy_id, database_id, attempts, failing_since, last_attempt_at, last_error, last_error_code, next_attempt_at)
VALUES (%(tenancy)s, %(database)s, 0, clock_timestamp(), clock_timestamp(), 'no answer yet', 'no-answer',
        clock_timestamp() + %(lease)s::interval)
ON CONFLICT (tenancy_id, database_id) DO UPDATE
SET next_attempt_at = clock_timestamp() + %(lease)s::interval,
    last_error = 'no answer yet', last_error_code = 'no-answer'

-- name: record_success
DELETE FROM stackctl.delivery WHERE tenancy_id = %(tenancy)s AND database_id = %(database)s

-- name: forget_failures
DELETE FROM stackctl.delivery
WHERE %(everything)s OR (tenancy_id, database_id) IN (SELECT * FROM unnest(%(tenancies)s::uuid[], %(databases)s::text[]))
RETURNING tenancy_id, database_id

-- name: retry_now
UPDATE stackctl.delivery SET next_attempt_at = clock_timestamp(), attempts = 0
WHERE %(everything)s OR (tenancy_id, database_id) IN (SELECT * FROM unnest(%(tenancies)s::uuid[], %(databases)s::text[]))
RETURNING tenancy_id, database_id

-- name: claim_sweep
INSERT INTO stackctl.sweep AS s (singleton, last_swept_at) VALUES (true, clock_timestamp())
ON CONFLICT (singleton) DO UPDATE SET last_swept_at = EXCLUDED.last_swept_at
WHERE s.last_swept_at <= clock_timestamp() - %(interval)s::interval
RETURNING true
