-- What a caller of the backend's contract uses: queue a tenancy, stamp a batch. Each is made where none of its name is.

DO $migration$
BEGIN
  IF NOT EXISTS (
    SELECT FROM pg_proc
    WHERE proname = 'enqueue_tenant_sync' AND pronamespace = to_regnamespace(quote_ident(current_schema()))
  ) THEN
    CREATE FUNCTION enqueue_tenant_sync(tenancy_id uuid) RETURNS void LANGUAGE plpgsql
    SET search_path = /* SCHEMA_NAME_SENTINEL */, pg_temp AS $$
    BEGIN
      INSERT INTO "OutgoingRequest" ("id", "createdAt", "deduplicationKey", "qstashOptions")
      VALUES (
        gen_random_uuid(), now() AT TIME ZONE 'UTC', 'sentinel-sync-key-' || tenancy_id,
        jsonb_build_object(
          'url', '/api/latest/internal/external-db-sync/sync-engine',
          'body', jsonb_build_object('tenancyId', tenancy_id),
          'flowControl', jsonb_build_object('key', 'sentinel-sync-key', 'parallelism', 20)
        )
      )
      -- A pending entry is written again to lock it. DO NOTHING would let a poller claim and finish that entry before
      -- the caller's stamps are visible, and nothing would be left to send them.
      ON CONFLICT ("deduplicationKey") WHERE "startedFulfillingAt" IS NULL
      DO UPDATE SET "qstashOptions" = EXCLUDED."qstashOptions";
    END
    $$;
  END IF;

  IF NOT EXISTS (
    SELECT FROM pg_proc
    WHERE proname = 'backfill_null_sequence_ids' AND pronamespace = to_regnamespace(quote_ident(current_schema()))
  ) THEN
    -- Stamps up to batch_size marked rows of each table and queues their tenancies; returns how many were stamped.
    -- Rows that depend on a stamped row are marked, and wait for a lock on them; the sequencer of stackctl steps aside
    -- instead, so prefer it on a busy database.
    CREATE FUNCTION backfill_null_sequence_ids(batch_size integer) RETURNS bigint LANGUAGE plpgsql
    SET search_path = /* SCHEMA_NAME_SENTINEL */, pg_temp AS $$
    DECLARE
      stamped bigint := 0;
      highest bigint;
      touched uuid[] := '{}';
      sequenced text;
      tenancy uuid;
      found record;
    BEGIN
      -- nextval is not transactional: of two stampers at once the later numbers could be visible first, and a cursor
      -- would pass the others for ever. The commit releases the lock.
      PERFORM pg_advisory_xact_lock(hashtextextended('stackctl.sequencer', 0));

      -- Rows that others depend on come first, so that those are stamped in the same call.
      FOREACH sequenced IN ARRAY ARRAY[
        'ContactChannel', 'Team', 'DeletedRow', 'ProjectUser', 'TeamMember', 'TeamMemberDirectPermission',
        'ProjectUserDirectPermission', 'UserNotificationPreference', 'ProjectUserRefreshToken',
        'ProjectUserOAuthAccount', 'EmailOutbox'
      ]
      LOOP
        EXECUTE format(
          $stamp$
            WITH batch AS MATERIALIZED (
              SELECT ctid AS place FROM %1$I WHERE "shouldUpdateSequenceId"
              ORDER BY "tenancyId" LIMIT $1 FOR UPDATE SKIP LOCKED
            ),
            stamped AS (
              UPDATE %1$I AS t SET "sequenceId" = nextval('global_seq_id'), "shouldUpdateSequenceId" = FALSE
              FROM batch WHERE t.ctid = batch.place
              RETURNING t."sequenceId", t."tenancyId", to_jsonb(t) AS row
            )
            SELECT count(*) AS rows, max("sequenceId") AS highest, array_agg(DISTINCT "tenancyId") AS tenancies,
                   array_agg(row) FILTER (WHERE %2$s) AS with_dependents
            FROM stamped
          $stamp$,
          sequenced,
          CASE sequenced
            WHEN 'ContactChannel' THEN 'TRUE'
            WHEN 'Team' THEN 'TRUE'
            WHEN 'DeletedRow' THEN $when$row ->> 'tableName' IN ('ContactChannel', 'Team')$when$
            ELSE 'FALSE'
          END
        ) USING batch_size INTO found;
        CONTINUE WHEN found.rows = 0;
        stamped := stamped + found.rows;
        highest := greatest(highest, found.highest);
        touched := touched || found.tenancies;
        CONTINUE WHEN found.with_dependents IS NULL;

        UPDATE "ProjectUser" AS u SET "shouldUpdateSequenceId" = TRUE
        FROM (
          SELECT DISTINCT (k.key ->> 'tenancyId')::uuid AS tenancy_id, (k.key ->> 'projectUserId')::uuid AS user_id
          FROM unnest(found.with_dependents) AS r (row)
          CROSS JOIN LATERAL (SELECT coalesce(r.row -> 'primaryKey', r.row)) AS k (key)
          WHERE k.key ? 'projectUserId'
        ) AS changed
        WHERE u."tenancyId" = changed.tenancy_id AND u."projectUserId" = changed.user_id
          AND NOT u."shouldUpdateSequenceId";

        UPDATE "VerificationCode" AS c SET "shouldUpdateSequenceId" = TRUE
        FROM (
          SELECT DISTINCT n."projectId", n."branchId", k.key ->> 'teamId' AS team_id
          FROM unnest(found.with_dependents) AS r (row)
          CROSS JOIN LATERAL (SELECT coalesce(r.row -> 'primaryKey', r.row)) AS k (key)
          JOIN "Tenancy" AS n ON n."id" = (k.key ->> 'tenancyId')::uuid
          WHERE k.key ? 'teamId'
        ) AS changed
        WHERE c."type" = 'TEAM_INVITATION' AND c."data" ->> 'team_id' = changed.team_id
          AND c."projectId" = changed."projectId" AND c."branchId" = changed."branchId"
          AND NOT c."shouldUpdateSequenceId";
      END LOOP;

      WITH batch AS MATERIALIZED (
        SELECT ctid AS place FROM "VerificationCode" WHERE "shouldUpdateSequenceId" AND "type" = 'TEAM_INVITATION'
        LIMIT batch_size FOR UPDATE SKIP LOCKED
      ),
      changed AS (
        UPDATE "VerificationCode" AS c SET "sequenceId" = nextval('global_seq_id'), "shouldUpdateSequenceId" = FALSE
        FROM batch WHERE c.ctid = batch.place
        RETURNING c."sequenceId", c."projectId", c."branchId"
      )
      SELECT (SELECT count(*) FROM changed) AS rows, (SELECT max("sequenceId") FROM changed) AS highest,
             ARRAY(
               SELECT DISTINCT n."id" FROM changed
               JOIN "Tenancy" AS n ON n."projectId" = changed."projectId" AND n."branchId" = changed."branchId"
             ) AS tenancies
      INTO found;
      stamped := stamped + found.rows;
      highest := greatest(highest, found.highest);
      touched := touched || found.tenancies;

      -- In one order everywhere, so that two callers can't lock each other's entries crosswise.
      FOR tenancy IN SELECT DISTINCT t FROM unnest(touched) AS t ORDER BY t LOOP
        PERFORM enqueue_tenant_sync(tenancy);
      END LOOP;

      IF highest IS NOT NULL AND has_table_privilege('stackctl.stamp_log', 'INSERT') THEN
        INSERT INTO stackctl.stamp_log (up_to_sequence_id) VALUES (highest) ON CONFLICT DO NOTHING;
      END IF;
      RETURN stamped;
    END
    $$;
  END IF;
END $migration$;
