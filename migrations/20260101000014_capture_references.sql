-- Change capture, what the triggers of before did not see: a row that changes whom it belongs to without changing its key,
-- a tenancy that comes into a project with invitations, a TRUNCATE of tenancies; and writes of sessions in which ordinary
-- triggers do not fire.
--
-- As there, a trigger is made where none on the table does its job, and what a live backend brought along stays as it is.
--
-- stackctl:change-capture

-- A tenancy that moves to another project or branch finds invitations there that its copies were never sent; so does one
-- that comes back after its own were taken away.
CREATE OR REPLACE FUNCTION mark_gained_invitations() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = /* SCHEMA_NAME_SENTINEL */, pg_temp AS $$
BEGIN
  IF TG_OP = 'UPDATE' OR EXISTS (
    SELECT FROM "DeletedRow" AS gone
    WHERE gone."tenancyId" = NEW."id" AND gone."tableName" = 'VerificationCode_TEAM_INVITATION'
  ) THEN
    UPDATE "VerificationCode" AS code SET "shouldUpdateSequenceId" = TRUE
    WHERE code."projectId" = NEW."projectId" AND code."branchId" = NEW."branchId" AND code."type" = 'TEAM_INVITATION'
      AND NOT code."shouldUpdateSequenceId";
  END IF;
  RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION mark_gained_invitations() FROM PUBLIC;

CREATE OR REPLACE FUNCTION log_truncated_tenancies() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = /* SCHEMA_NAME_SENTINEL */, pg_temp AS $$
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    -- TRUNCATE removes rows that an older snapshot does not show: their deletes would be lost.
    RAISE EXCEPTION 'TRUNCATE of "%" is possible at READ COMMITTED only', TG_TABLE_NAME
      USING HINT = 'Use DELETE, or SET TRANSACTION ISOLATION LEVEL READ COMMITTED.';
  END IF;
  INSERT INTO "DeletedRow" ("id", "tenancyId", "tableName", "primaryKey", "data", "deletedAt")
  SELECT gen_random_uuid(), tenancy."id", 'VerificationCode_TEAM_INVITATION', jsonb_build_object('id', code."id"),
         to_jsonb(code), now() AT TIME ZONE 'UTC'
  FROM "Tenancy" AS tenancy
  JOIN "VerificationCode" AS code
    ON code."projectId" = tenancy."projectId" AND code."branchId" = tenancy."branchId"
  WHERE code."type" = 'TEAM_INVITATION';
  RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION log_truncated_tenancies() FROM PUBLIC;

-- The tombstone of a row that is still there says whom it belonged to, for those who depend on it; its own copy is sent
-- as it is now.
--
-- stackctl:allow dynamic-sql it creates triggers, whose definitions stand in the query
DO $migration$
DECLARE
  wanted record;
BEGIN
  FOR wanted IN
    WITH needed (on_table, name, definition) AS (
      SELECT on_table, 'log_moved_reference',
             format('CREATE TRIGGER log_moved_reference AFTER UPDATE ON %I FOR EACH ROW '
                    'WHEN (OLD."projectUserId" IS DISTINCT FROM NEW."projectUserId") '
                    'EXECUTE FUNCTION log_moved_row(''tenancyId'', ''id'')', on_table)
      FROM unnest(ARRAY['UserNotificationPreference', 'ProjectUserRefreshToken', 'ProjectUserOAuthAccount']) AS on_table
      UNION ALL VALUES
        ('Tenancy', 'mark_gained_invitations',
         'CREATE TRIGGER mark_gained_invitations AFTER INSERT ON "Tenancy" FOR EACH ROW '
         'EXECUTE FUNCTION mark_gained_invitations()'),
        ('Tenancy', 'mark_gained_invitations_on_move',
         'CREATE TRIGGER mark_gained_invitations_on_move AFTER UPDATE ON "Tenancy" FOR EACH ROW '
         'WHEN (OLD."projectId" <> NEW."projectId" OR OLD."branchId" <> NEW."branchId") '
         'EXECUTE FUNCTION mark_gained_invitations()'),
        ('Tenancy', 'log_truncated_tenancies',
         'CREATE TRIGGER log_truncated_tenancies BEFORE TRUNCATE ON "Tenancy" FOR EACH STATEMENT '
         'EXECUTE FUNCTION log_truncated_tenancies()')
    )
    SELECT definition FROM needed AS n
    WHERE NOT EXISTS (
      SELECT FROM pg_trigger AS t WHERE t.tgrelid = format('%I', n.on_table)::regclass AND t.tgname = n.name
    )
  LOOP
    EXECUTE wanted.definition;
  END LOOP;
END $migration$;

-- Also where a session has taken the role of a replica (session_replication_role): an import, a repair by hand, a
-- subscription. Elsewhere nobody would see its changes. Those of a publisher that has such triggers itself are captured
-- twice, which does no harm: a tombstone is looked up, and a stamp is no change.
--
-- stackctl:allow dynamic-sql it alters triggers that the query has found, none but those made here
DO $migration$
DECLARE
  ours record;
BEGIN
  FOR ours IN
    SELECT c.relname, t.tgname
    FROM pg_trigger AS t
    JOIN pg_class AS c ON c.oid = t.tgrelid
    JOIN pg_proc AS p ON p.oid = t.tgfoid
    WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema())) AND t.tgenabled = 'O' AND NOT t.tgisinternal
      AND (t.tgname::text, p.proname::text) IN (VALUES
        ('log_deleted_row', 'log_deleted_row'),
        ('log_deleted_row', 'log_deleted_invitation'),
        ('log_moved_row', 'log_moved_row'),
        ('log_moved_row', 'log_deleted_invitation'),
        ('log_moved_reference', 'log_moved_row'),
        ('log_truncated_rows', 'log_truncated_rows'),
        ('log_truncated_tenancies', 'log_truncated_tenancies'),
        ('log_orphaned_invitations', 'log_orphaned_invitations'),
        ('log_orphaned_invitations_on_move', 'log_orphaned_invitations'),
        ('mark_gained_invitations', 'mark_gained_invitations'),
        ('mark_gained_invitations_on_move', 'mark_gained_invitations'),
        ('reset_sequence_id_on_update', 'reset_sequence_id_on_update'),
        ('wake_listeners', 'wake_listeners')
      )
  LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER %I', ours.relname, ours.tgname);
  END LOOP;
END $migration$;
