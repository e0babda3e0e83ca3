-- Entries that are claimed, not taken: they stay in the queue, marked, until somebody else has done what they ask for.
-- A claim is known by the entry's id and the moment it was made or renewed.

-- name: claim_entries
-- Oldest first; none of a tenancy that is in hand already, or that rests after a failure.
UPDATE "OutgoingRequest" AS entry
SET "startedFulfillingAt" = clock_timestamp() AT TIME ZONE 'UTC'
FROM (
    SELECT id FROM "OutgoingRequest" AS waiting
    WHERE "startedFulfillingAt" IS NULL
      AND "qstashOptions" ->> 'url' LIKE '%%/api/latest/internal/external-db-sync/sync-engine'
      AND coalesce("qstashOptions" -> 'body' ->> 'tenancyId', '') <> ALL (%(busy)s::text[])
      AND NOT EXISTS (
          SELECT FROM stackctl.delivery AS d
          WHERE d.database_id = '' AND d.next_attempt_at > clock_timestamp()
            AND d.last_attempt_at <= clock_timestamp() + interval '1 minute'
            AND d.tenancy_id::text = lower(waiting."qstashOptions" -> 'body' ->> 'tenancyId'))
    ORDER BY "createdAt"
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
) AS pending
WHERE entry.id = pending.id
RETURNING entry.id, "startedFulfillingAt", "qstashOptions" -> 'body' ->> 'tenancyId',
          "qstashOptions" -> 'flowControl' ->> 'key', "qstashOptions" -> 'flowControl' -> 'parallelism',
          coalesce((SELECT d.attempts FROM stackctl.delivery AS d
                    WHERE d.database_id = ''
                      AND d.tenancy_id::text = lower("qstashOptions" -> 'body' ->> 'tenancyId')), 0)

-- name: renew_claims
UPDATE "OutgoingRequest" AS entry SET "startedFulfillingAt" = clock_timestamp() AT TIME ZONE 'UTC'
FROM unnest(%(ids)s::uuid[], %(times)s::timestamp[]) AS ours (id, claimed_at)
WHERE entry.id = ours.id AND entry."startedFulfillingAt" = ours.claimed_at
RETURNING entry.id, entry."startedFulfillingAt"

-- name: finish_claims
DELETE FROM "OutgoingRequest" AS entry
USING unnest(%(ids)s::uuid[], %(times)s::timestamp[]) AS ours (id, claimed_at)
WHERE entry.id = ours.id AND entry."startedFulfillingAt" = ours.claimed_at

-- name: take_back
DELETE FROM stackctl.delivery WHERE database_id = '' RETURNING tenancy_id

-- name: find_due_without_entry
-- Given up, and then made due by hand: the entry went when it was given up.
SELECT tenancy_id FROM stackctl.delivery AS d
WHERE database_id = '' AND next_attempt_at <= clock_timestamp()
  AND NOT EXISTS (SELECT FROM "OutgoingRequest" WHERE "deduplicationKey" = 'sentinel-sync-key-' || d.tenancy_id)

-- name: published_exist
SELECT to_regclass('stackctl.published_message') IS NOT NULL

-- name: record_published
-- It may have been delivered before this.
INSERT INTO stackctl.published_message (message_id, tenancy_id, entry_id)
SELECT * FROM unnest(%(messages)s::text[], %(tenancies)s::uuid[], %(entries)s::uuid[])
ON CONFLICT (message_id) DO NOTHING

-- name: end_published
-- A sync that began after an earlier message was published did what that asks for.
WITH ended AS (
    INSERT INTO stackctl.published_message AS one (message_id, tenancy_id, ended_at)
    VALUES (%(message)s, %(tenancy)s, clock_timestamp())
    ON CONFLICT (message_id) DO UPDATE SET ended_at = EXCLUDED.ended_at
)
UPDATE stackctl.published_message SET ended_at = clock_timestamp()
WHERE tenancy_id = %(tenancy)s AND ended_at IS NULL AND message_id <> %(message)s
  AND published_at < clock_timestamp() - %(lasted)s::interval

-- name: list_published
SELECT message_id, tenancy_id, entry_id, published_at FROM stackctl.published_message
WHERE ended_at IS NULL AND (%(tenancy)s::uuid IS NULL OR tenancy_id = %(tenancy)s)
ORDER BY published_at, message_id LIMIT %(limit)s

-- name: forget_published
DELETE FROM stackctl.published_message WHERE message_id = ANY (%(messages)s::text[])

-- name: prune_published
DELETE FROM stackctl.published_message WHERE coalesce(ended_at, published_at) < clock_timestamp() - interval '1 day'
