-- How the loops learn that there is work: one query a tick, and notifications.

-- name: find_work
-- Everything that a loop may wait for, in one row; composed in wakeup.py.
SELECT coalesce((SELECT "sequencerEnabled" FROM "ExternalDbSyncMetadata" LIMIT 1), true),
       coalesce((SELECT "pollerEnabled" FROM "ExternalDbSyncMetadata" LIMIT 1), true),
       {marked}, {queued}

-- name: find_queued_work
-- An entry to take, one whose claim has expired, a database that is due or whose lease has expired, a retry that is due;
-- and whether it is time for the sweep. What lies ahead is from before the clock was set back.
-- now() and not clock_timestamp(): the statement is its own transaction, and the index can be used.
EXISTS (SELECT FROM "OutgoingRequest"
        WHERE "startedFulfillingAt" IS NULL
          AND "qstashOptions" ->> 'url' LIKE '%%/api/latest/internal/external-db-sync/sync-engine')
OR EXISTS (SELECT FROM "OutgoingRequest"
           WHERE ("startedFulfillingAt" < (now() AT TIME ZONE 'UTC') - {lease}::interval
                  OR "startedFulfillingAt" > (now() AT TIME ZONE 'UTC') + {lease}::interval)
             AND "qstashOptions" ->> 'url' LIKE '%%/api/latest/internal/external-db-sync/sync-engine')
OR EXISTS (SELECT FROM stackctl.pending_delivery
           WHERE leased_by IS NULL
              OR leased_at NOT BETWEEN now() - {lease}::interval AND now() + {lease}::interval)
OR EXISTS (SELECT FROM stackctl.delivery WHERE next_attempt_at <= now() AND database_id <> '')
OR EXISTS (SELECT FROM stackctl.delivery
           WHERE next_attempt_at IS NOT NULL AND last_attempt_at > now() + interval '1 minute' AND database_id <> ''),
NOT EXISTS (SELECT FROM stackctl.sweep WHERE last_swept_at BETWEEN now() - {sweep}::interval AND now())

-- name: find_tables_without_trigger
-- Tables whose triggers do not notify (disabled, or only in a replica); null: nothing of it is installed.
SELECT CASE WHEN to_regclass('stackctl.listening') IS NOT NULL THEN ARRAY(
    SELECT name FROM unnest(%(tables)s::text[]) AS name
    WHERE NOT EXISTS (
        SELECT FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid
        WHERE t.tgrelid = to_regclass(quote_ident(name)) AND t.tgenabled IN ('O', 'A') AND t.tgtype & 4 <> 0
          AND p.proname = 'wake_listeners' AND p.pronamespace = to_regnamespace('stackctl'))
    ORDER BY name) END

-- name: renew_listening
-- Several may listen: the promise of one must not be cut short by another.
INSERT INTO stackctl.listening AS l (singleton, listening_until) VALUES (true, now() + %(span)s::interval)
ON CONFLICT (singleton) DO UPDATE SET listening_until = greatest(l.listening_until, EXCLUDED.listening_until)

-- name: notify
SELECT pg_notify(%(channel)s, %(payload)s)
