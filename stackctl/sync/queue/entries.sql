-- The queue of tenancies to sync ("OutgoingRequest"), shared with the backend: only entries whose url is the sync
-- engine's (a path, or with the backend's address before it) are ours. "startedFulfillingAt" is the mark of a claim that
-- others hold.

-- name: enqueue_tenancies
-- DO UPDATE, not DO NOTHING: the write locks the pending entry, so that a poller can't claim it, sync before the
-- caller's stamps are visible, and delete it. In tenancy order, so that two callers can't deadlock.
INSERT INTO "OutgoingRequest" (id, "qstashOptions", "deduplicationKey", "createdAt")
SELECT gen_random_uuid(),
       jsonb_build_object(
           'url', '/api/latest/internal/external-db-sync/sync-engine',
           'body', jsonb_build_object('tenancyId', tenancy),
           'flowControl', jsonb_build_object('key', 'sentinel-sync-key', 'parallelism', 20)),
       'sentinel-sync-key-' || tenancy,
       now() AT TIME ZONE 'UTC'
FROM unnest(%(tenancies)s::uuid[]) AS tenancy
ORDER BY tenancy
ON CONFLICT ("deduplicationKey") WHERE "startedFulfillingAt" IS NULL
DO UPDATE SET "qstashOptions" = EXCLUDED."qstashOptions"

-- name: take_entries
DELETE FROM "OutgoingRequest" AS entry
USING (
    SELECT id FROM "OutgoingRequest"
    WHERE "startedFulfillingAt" IS NULL
      AND "qstashOptions" ->> 'url' LIKE '%%/api/latest/internal/external-db-sync/sync-engine'
    ORDER BY "createdAt"
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
) AS pending
WHERE entry.id = pending.id
RETURNING entry."qstashOptions" -> 'body' ->> 'tenancyId'

-- name: release_entry
-- Back to pending by deleting and queueing again: an UPDATE to null would violate the unique index when a newer
-- pending entry of the same key exists, and would take the whole statement with it.
WITH given_up AS (
    DELETE FROM "OutgoingRequest"
    WHERE id = %(id)s AND "startedFulfillingAt" = %(claimed_at)s
    RETURNING id, "qstashOptions", "deduplicationKey", "createdAt"
)
INSERT INTO "OutgoingRequest" (id, "qstashOptions", "deduplicationKey", "createdAt")
SELECT id, "qstashOptions", "deduplicationKey", "createdAt" FROM given_up
ON CONFLICT ("deduplicationKey") WHERE "startedFulfillingAt" IS NULL
DO UPDATE SET "qstashOptions" = EXCLUDED."qstashOptions"

-- name: find_expired
-- A claim that lies ahead was made before the clock was set back.
SELECT id, "startedFulfillingAt" FROM "OutgoingRequest"
WHERE ("startedFulfillingAt" < (clock_timestamp() AT TIME ZONE 'UTC') - %(lease)s::interval
       OR "startedFulfillingAt" > (clock_timestamp() AT TIME ZONE 'UTC') + %(lease)s::interval)
  AND "qstashOptions" ->> 'url' LIKE '%%/api/latest/internal/external-db-sync/sync-engine'
ORDER BY "deduplicationKey", id
FOR UPDATE SKIP LOCKED

-- name: list_entries
SELECT id, "qstashOptions" -> 'body' ->> 'tenancyId', "createdAt", "startedFulfillingAt",
       "startedFulfillingAt" < (clock_timestamp() AT TIME ZONE 'UTC') - %(lease)s::interval
FROM "OutgoingRequest"
WHERE "qstashOptions" ->> 'url' LIKE '%%/api/latest/internal/external-db-sync/sync-engine'
  AND (%(tenancy)s::text IS NULL OR "qstashOptions" -> 'body' ->> 'tenancyId' = %(tenancy)s)
ORDER BY "createdAt"
LIMIT %(limit)s

-- name: summarize_queue
WITH work (since, claimed_at) AS (
    SELECT "createdAt", "startedFulfillingAt" FROM "OutgoingRequest"
    WHERE "qstashOptions" ->> 'url' LIKE '%%/api/latest/internal/external-db-sync/sync-engine'
    UNION ALL
    SELECT queued_at AT TIME ZONE 'UTC', leased_at AT TIME ZONE 'UTC' FROM stackctl.pending_delivery
)
SELECT count(*) FILTER (WHERE claimed_at IS NULL),
       count(*) FILTER (WHERE claimed_at >= (clock_timestamp() AT TIME ZONE 'UTC') - %(lease)s::interval),
       count(*) FILTER (WHERE claimed_at < (clock_timestamp() AT TIME ZONE 'UTC') - %(lease)s::interval),
       (SELECT count(DISTINCT (tenancy_id, database_id)) FROM stackctl.delivery AS d
        WHERE next_attempt_at IS NULL
          AND NOT EXISTS (SELECT FROM stackctl.pause AS p
                          WHERE coalesce(p.tenancy_id, d.tenancy_id) = d.tenancy_id
                            AND coalesce(p.database_id, d.database_id) = d.database_id
                            AND coalesce(p.mapping, d.mapping) = d.mapping)),
       extract(epoch FROM (clock_timestamp() AT TIME ZONE 'UTC') - min(since)) * 1000
FROM work

-- name: find_existing_tenancies
-- A deleted tenancy still exists here while it has tombstones: its copies must be emptied.
SELECT tenancy FROM unnest(%(tenancies)s::uuid[]) AS tenancy
WHERE EXISTS (SELECT 1 FROM "Tenancy" WHERE id = tenancy)
   OR EXISTS (SELECT 1 FROM "DeletedRow" WHERE "tenancyId" = tenancy)
