-- The sequence that stamps changed rows, and the columns and indexes that stamping and reading in order need.

-- No cache: a session that kept numbers back would stamp below what another has made visible already.
CREATE SEQUENCE IF NOT EXISTS global_seq_id AS bigint START WITH 1 INCREMENT BY 11 CACHE 1;

-- stackctl:allow dynamic-sql it adds two columns without a volatile default, which rewrites nothing
DO $$
DECLARE
  sequenced text;
BEGIN
  FOREACH sequenced IN ARRAY ARRAY[
    'ProjectUser', 'ContactChannel', 'Team', 'TeamMember', 'TeamMemberDirectPermission', 'ProjectUserDirectPermission',
    'UserNotificationPreference', 'ProjectUserRefreshToken', 'ProjectUserOAuthAccount', 'EmailOutbox',
    'VerificationCode', 'DeletedRow'
  ]
  LOOP
    -- Asked first: even where it has nothing to add, ADD COLUMN IF NOT EXISTS waits for every reader of the table.
    IF (
      SELECT count(*) FROM pg_attribute
      WHERE attrelid = format('%I', sequenced)::regclass AND NOT attisdropped
        AND attname IN ('sequenceId', 'shouldUpdateSequenceId')
    ) < 2 THEN
      EXECUTE format(
        'ALTER TABLE %I ADD COLUMN IF NOT EXISTS "sequenceId" bigint, '
        'ADD COLUMN IF NOT EXISTS "shouldUpdateSequenceId" boolean NOT NULL DEFAULT true',
        sequenced
      );
    END IF;
  END LOOP;
END $$;

-- Each index is made where none serves the same purpose, whatever its name. A partial index on the mark holds only the
-- rows that wait for a stamp, and costs the others nothing.
--
-- stackctl:allow dynamic-sql it makes indexes that are missing; built CONCURRENTLY beforehand, none is
-- stackctl:allow index-not-concurrent made where it is missing only; built CONCURRENTLY beforehand, it is not
-- stackctl:allow unique-added ON CONFLICT of the backend that is to run on it asks for this index
DO $$
DECLARE
  wanted record;
BEGIN
  FOR wanted IN
    WITH tenancy_table (name) AS (
      SELECT unnest(ARRAY[
        'ProjectUser', 'ContactChannel', 'Team', 'TeamMember', 'TeamMemberDirectPermission',
        'ProjectUserDirectPermission', 'UserNotificationPreference', 'ProjectUserRefreshToken',
        'ProjectUserOAuthAccount', 'EmailOutbox'
      ])
    ),
    needed (on_table, columns, predicate, served_by, definition) AS (
      SELECT name, ARRAY['tenancyId', 'sequenceId'], NULL, NULL::text[], '("tenancyId", "sequenceId")'
      FROM tenancy_table
      UNION ALL
      SELECT name, ARRAY['tenancyId'], 'shouldUpdateSequenceId', ARRAY['shouldUpdateSequenceId', 'tenancyId'],
             '("tenancyId") WHERE "shouldUpdateSequenceId"'
      FROM (TABLE tenancy_table UNION ALL VALUES ('DeletedRow')) AS marked (name)
      UNION ALL VALUES
        ('DeletedRow', ARRAY['tenancyId', 'tableName', 'sequenceId'], NULL, NULL,
         '("tenancyId", "tableName", "sequenceId")'),
        ('VerificationCode', ARRAY['projectId', 'branchId', 'sequenceId'], NULL, NULL,
         '("projectId", "branchId", "sequenceId") WHERE "type" = ''TEAM_INVITATION'''),
        ('VerificationCode', ARRAY['type'], 'shouldUpdateSequenceId', ARRAY['shouldUpdateSequenceId', 'type'],
         '("type") WHERE "shouldUpdateSequenceId"'),
        ('VerificationCode', ARRAY['(data ->> ''team_id''::text)'], 'TEAM_INVITATION', NULL,
         '((data ->> ''team_id'')) WHERE "type" = ''TEAM_INVITATION'''),
        ('OutgoingRequest', ARRAY['startedFulfillingAt', 'createdAt'], NULL, NULL,
         '("startedFulfillingAt", "createdAt")'),
        ('OutgoingRequest', ARRAY['startedFulfillingAt', 'deduplicationKey'], NULL, NULL,
         '("startedFulfillingAt", "deduplicationKey")')
    ),
    present AS (
      SELECT t.relname AS on_table, pg_get_expr(i.indpred, i.indrelid) AS predicate,
             (SELECT array_agg(trim(BOTH '"' FROM pg_get_indexdef(i.indexrelid, k, true)) ORDER BY k)
              FROM generate_series(1, i.indnkeyatts) AS k) AS key
      FROM pg_index AS i JOIN pg_class AS t ON t.oid = i.indrelid
      WHERE t.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema()) AND i.indisvalid
    )
    SELECT n.on_table, n.definition FROM needed AS n
    WHERE NOT EXISTS (
      SELECT FROM present AS p
      WHERE p.on_table = n.on_table AND (
        (p.key[1:cardinality(n.columns)] = n.columns
         AND CASE WHEN n.predicate IS NULL THEN p.predicate IS NULL
                  ELSE coalesce(p.predicate, '') LIKE '%' || n.predicate || '%' END)
        OR (p.key[1:cardinality(n.served_by)] = n.served_by AND p.predicate IS NULL)
      )
    )
  LOOP
    EXECUTE format('CREATE INDEX ON %I %s', wanted.on_table, wanted.definition);
  END LOOP;

  -- One pending queue entry for each key: what ON CONFLICT rests on.
  IF NOT EXISTS (
    SELECT FROM pg_index AS i
    WHERE i.indrelid = '"OutgoingRequest"'::regclass AND i.indisunique AND i.indisvalid AND i.indnkeyatts = 1
      AND pg_get_indexdef(i.indexrelid, 1, true) = '"deduplicationKey"'
      AND pg_get_expr(i.indpred, i.indrelid) = '("startedFulfillingAt" IS NULL)'
  ) THEN
    CREATE UNIQUE INDEX "OutgoingRequest_deduplicationKey_pending_key"
      ON "OutgoingRequest" ("deduplicationKey") WHERE "startedFulfillingAt" IS NULL;
  END IF;
END $$;
