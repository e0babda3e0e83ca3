-- The fuses: one row at the most; without it both are on.

-- name: read_fuses
SELECT coalesce((SELECT "sequencerEnabled" FROM "ExternalDbSyncMetadata" LIMIT 1), true),
       coalesce((SELECT "pollerEnabled" FROM "ExternalDbSyncMetadata" LIMIT 1), true)

-- name: read_switched_at
SELECT max("updatedAt") AT TIME ZONE 'UTC' FROM "ExternalDbSyncMetadata"

-- name: switch_sequencer
INSERT INTO "ExternalDbSyncMetadata" ("sequencerEnabled", "updatedAt") VALUES (%(on)s, now() AT TIME ZONE 'UTC')
ON CONFLICT (singleton) DO UPDATE
SET "sequencerEnabled" = EXCLUDED."sequencerEnabled", "updatedAt" = EXCLUDED."updatedAt"

-- name: switch_poller
INSERT INTO "ExternalDbSyncMetadata" ("pollerEnabled", "updatedAt") VALUES (%(on)s, now() AT TIME ZONE 'UTC')
ON CONFLICT (singleton) DO UPDATE
SET "pollerEnabled" = EXCLUDED."pollerEnabled", "updatedAt" = EXCLUDED."updatedAt"
