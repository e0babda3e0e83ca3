-- Databases that are to be brought up to date, one row each. A lease is the mark of the poller that works on it.
-- Several rows are locked in order of tenancy and database, after rows of stackctl.delivery: no deadlock.

-- name: add_deliveries
-- DO UPDATE, not DO NOTHING: the write meets whoever finishes the row, and one of the two sees the other.
INSERT INTO stackctl.pending_delivery AS p (tenancy_id, database_id)
SELECT tenancy, database FROM unnest(%(tenancies)s::uuid[], %(databases)s::text[]) AS wanted (tenancy, database)
ORDER BY tenancy, database
ON CONFLICT (tenancy_id, database_id) DO UPDATE SET again = p.leased_by IS NOT NULL

-- name: add_due_retries
-- The next attempt is pushed out by the lease first: whoever is killed during the attempt leaves it due again. An
-- attempt that lies ahead was made before the clock was set back.
WITH due AS (
    SELECT tenancy_id, database_id, mapping FROM stackctl.delivery
    WHERE (next_attempt_at <= clock_timestamp()
           OR next_attempt_at IS NOT NULL AND last_attempt_at > clock_timestamp() + interval '1 minute')
      AND database_id <> '' -- that is a tenancy which could not be handed on (claims.sql)
    ORDER BY next_attempt_at LIMIT 1000
    FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE stackctl.delivery AS d
    SET next_attempt_at = clock_timestamp() + %(lease)s::interval,
        last_attempt_at = least(d.last_attempt_at, clock_timestamp())
    FROM due
    WHERE (d.tenancy_id, d.database_id, d.mapping) = (due.tenancy_id, due.database_id, due.mapping)
    RETURNING d.tenancy_id, d.database_id, d.mapping
)
INSERT INTO stackctl.pending_delivery AS p (tenancy_id, database_id, retry)
SELECT tenancy_id, database_id, array_agg(mapping) FROM taken
GROUP BY tenancy_id, database_id ORDER BY tenancy_id, database_id
ON CONFLICT (tenancy_id, database_id) DO UPDATE
SET again = p.leased_by IS NOT NULL,
    retry = ARRAY(SELECT DISTINCT unnest(p.retry || EXCLUDED.retry))

-- name: lease_deliveries
-- The tenancies take turns: the first database of each that has least in hand, then the second, and so on.
-- With each, the mappings that are to be tried again, and those that rest ('': the whole database).
-- Only of tenancies that can be among them: their first databases come before all others. A hundred more than are wanted,
-- because others may be taking some of them.
WITH first AS MATERIALIZED (
    SELECT tenancy_id FROM stackctl.pending_delivery
    GROUP BY tenancy_id
    HAVING min(queued_at) FILTER (WHERE leased_by IS NULL AND slow = %(slow)s) IS NOT NULL
    ORDER BY count(*) FILTER (WHERE leased_by IS NOT NULL),
             min(queued_at) FILTER (WHERE leased_by IS NULL AND slow = %(slow)s)
    LIMIT %(limit)s + 100
), ranked AS (
    SELECT tenancy_id, database_id, leased_by IS NULL AND slow = %(slow)s AS waits,
           count(*) FILTER (WHERE leased_by IS NOT NULL) OVER tenancy
           + row_number() OVER (PARTITION BY tenancy_id, leased_by IS NULL AND slow = %(slow)s ORDER BY queued_at)
           AS turn
    FROM stackctl.pending_delivery
    WHERE tenancy_id = ANY (ARRAY(SELECT tenancy_id FROM first))
    WINDOW tenancy AS (PARTITION BY tenancy_id)
), chosen AS (
    SELECT p.tenancy_id, p.database_id, p.retry
    FROM stackctl.pending_delivery AS p JOIN ranked AS r USING (tenancy_id, database_id)
    WHERE r.waits AND p.leased_by IS NULL
      AND (p.tenancy_id, p.database_id) NOT IN (
          SELECT * FROM unnest(%(busy_tenancies)s::uuid[], %(busy_databases)s::text[]))
    ORDER BY r.turn, p.queued_at LIMIT %(limit)s
    FOR UPDATE OF p SKIP LOCKED
), leased AS (
    UPDATE stackctl.pending_delivery AS p
    SET leased_by = %(holder)s, leased_at = clock_timestamp(), again = false, retry = '{}'
    FROM chosen AS c
    WHERE p.tenancy_id = c.tenancy_id AND p.database_id = c.database_id
    RETURNING p.tenancy_id, p.database_id, c.retry
)
SELECT tenancy_id, database_id, retry, ARRAY(
    SELECT d.mapping FROM stackctl.delivery AS d
    WHERE d.tenancy_id = leased.tenancy_id AND d.database_id = leased.database_id
      AND d.next_attempt_at > clock_timestamp() AND d.last_error_code <> 'rows-refused'
      AND d.mapping <> ALL (leased.retry))
FROM leased

-- name: has_waiting
SELECT EXISTS (SELECT FROM stackctl.pending_delivery WHERE leased_by IS NULL AND slow)

-- name: renew_leases
WITH ours AS (
    SELECT tenancy_id, database_id FROM stackctl.pending_delivery WHERE leased_by = %(holder)s
    ORDER BY tenancy_id, database_id FOR UPDATE
)
UPDATE stackctl.pending_delivery AS p SET leased_at = clock_timestamp() FROM ours
WHERE p.tenancy_id = ours.tenancy_id AND p.database_id = ours.database_id

-- name: recover_leases
-- A lease that lies ahead was taken before the clock was set back.
WITH expired AS (
    SELECT tenancy_id, database_id FROM stackctl.pending_delivery
    WHERE leased_by <> %(holder)s
      AND leased_at NOT BETWEEN clock_timestamp() - %(lease)s::interval AND clock_timestamp() + %(lease)s::interval
    FOR UPDATE SKIP LOCKED
)
UPDATE stackctl.pending_delivery AS p SET leased_by = NULL, leased_at = NULL, again = false FROM expired
WHERE p.tenancy_id = expired.tenancy_id AND p.database_id = expired.database_id

-- name: finish_delivery
DELETE FROM stackctl.pending_delivery
WHERE tenancy_id = %(tenancy)s AND database_id = %(database)s AND leased_by = %(holder)s AND NOT again

-- name: reopen_delivery
UPDATE stackctl.pending_delivery
SET leased_by = NULL, leased_at = NULL, again = false, queued_at = clock_timestamp(), slow = %(slow)s,
    retry = ARRAY(SELECT DISTINCT unnest(retry || %(retry)s::text[]))
WHERE tenancy_id = %(tenancy)s AND database_id = %(database)s AND leased_by = %(holder)s
