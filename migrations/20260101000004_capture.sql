-- Change capture in the database: a changed row is marked, a deleted one leaves a tombstone, whoever did it.
--
-- A function is made where none of its name exists, a trigger where no trigger on the table calls its function for the
-- same event: what a live backend brought along stays as it is.
--
-- stackctl:change-capture

-- stackctl:allow dynamic-sql it creates two functions of its own and revokes the right to call them
DO $migration$
DECLARE
  name text;
BEGIN
  IF NOT EXISTS (
    SELECT FROM pg_proc
    WHERE proname = 'reset_sequence_id_on_update' AND pronamespace = to_regnamespace(quote_ident(current_schema()))
  ) THEN
    CREATE FUNCTION reset_sequence_id_on_update() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      NEW."shouldUpdateSequenceId" := TRUE;
      RETURN NEW;
    END
    $$;
  END IF;

  -- Tombstones are written with the rights of the functions' owner: a role that may delete a user but knows nothing of
  -- "DeletedRow" must neither fail because of us nor leave no trace. The fixed search path keeps that from being
  -- abused, and so does REVOKE: nobody else can hang these functions on a table of their own.
  --
  -- log_moved_row is the same for a row that leaves its key or its tenancy. It has a name of its own because a
  -- backend's log_deleted_row may expect nothing but deletes.
  FOREACH name IN ARRAY ARRAY['log_deleted_row', 'log_moved_row'] LOOP
    IF NOT EXISTS (
      SELECT FROM pg_proc WHERE proname = name AND pronamespace = to_regnamespace(quote_ident(current_schema()))
    ) THEN
      EXECUTE format($create$
        CREATE FUNCTION %1$I() RETURNS trigger LANGUAGE plpgsql
        SECURITY DEFINER SET search_path = /* SCHEMA_NAME_SENTINEL */, pg_temp AS $$
        DECLARE
          old_row jsonb := to_jsonb(OLD);
        BEGIN
          -- The trigger's arguments are the columns of the key.
          INSERT INTO "DeletedRow" ("id", "tenancyId", "tableName", "primaryKey", "data", "deletedAt")
          VALUES (
            gen_random_uuid(), OLD."tenancyId", TG_TABLE_NAME,
            (SELECT jsonb_object_agg(key, old_row -> key) FROM unnest(TG_ARGV) AS key),
            old_row, now() AT TIME ZONE 'UTC'
          );
          RETURN NULL;
        END
        $$
      $create$, name);
      EXECUTE format('REVOKE ALL ON FUNCTION %I() FROM PUBLIC', name);
    END IF;
  END LOOP;
END $migration$;

-- An invitation belongs to each tenancy of its project and branch: to none, one or several.
CREATE OR REPLACE FUNCTION log_deleted_invitation() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = /* SCHEMA_NAME_SENTINEL */, pg_temp AS $$
BEGIN
  INSERT INTO "DeletedRow" ("id", "tenancyId", "tableName", "primaryKey", "data", "deletedAt")
  SELECT gen_random_uuid(), tenancy."id", 'VerificationCode_TEAM_INVITATION', jsonb_build_object('id', OLD."id"),
         to_jsonb(OLD), now() AT TIME ZONE 'UTC'
  FROM "Tenancy" AS tenancy
  WHERE tenancy."projectId" = OLD."projectId" AND tenancy."branchId" = OLD."branchId";
  RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION log_deleted_invitation() FROM PUBLIC;

-- A tenancy that goes, or leaves its project or branch, takes the invitations with it, though their rows stay.
CREATE OR REPLACE FUNCTION log_orphaned_invitations() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = /* SCHEMA_NAME_SENTINEL */, pg_temp AS $$
BEGIN
  INSERT INTO "DeletedRow" ("id", "tenancyId", "tableName", "primaryKey", "data", "deletedAt")
  SELECT gen_random_uuid(), OLD."id", 'VerificationCode_TEAM_INVITATION', jsonb_build_object('id', code."id"),
         to_jsonb(code), now() AT TIME ZONE 'UTC'
  FROM "VerificationCode" AS code
  WHERE code."projectId" = OLD."projectId" AND code."branchId" = OLD."branchId" AND code."type" = 'TEAM_INVITATION';
  RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION log_orphaned_invitations() FROM PUBLIC;

CREATE OR REPLACE FUNCTION log_truncated_rows() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = /* SCHEMA_NAME_SENTINEL */, pg_temp AS $$
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    -- TRUNCATE removes rows that an older snapshot does not show: their deletes would be lost.
    RAISE EXCEPTION 'TRUNCATE of "%" is possible at READ COMMITTED only', TG_TABLE_NAME
      USING HINT = 'Use DELETE, or SET TRANSACTION ISOLATION LEVEL READ COMMITTED.';
  END IF;
  IF TG_TABLE_NAME = 'VerificationCode' THEN
    INSERT INTO "DeletedRow" ("id", "tenancyId", "tableName", "primaryKey", "data", "deletedAt")
    SELECT gen_random_uuid(), tenancy."id", 'VerificationCode_TEAM_INVITATION', jsonb_build_object('id', code."id"),
           to_jsonb(code), now() AT TIME ZONE 'UTC'
    FROM "VerificationCode" AS code
    JOIN "Tenancy" AS tenancy
      ON tenancy."projectId" = code."projectId" AND tenancy."branchId" = code."branchId"
    WHERE code."type" = 'TEAM_INVITATION';
  ELSE
    EXECUTE format(
      'INSERT INTO "DeletedRow" ("id", "tenancyId", "tableName", "primaryKey", "data", "deletedAt") '
      'SELECT gen_random_uuid(), gone."tenancyId", %L, jsonb_build_object(%s), to_jsonb(gone), '
      'now() AT TIME ZONE ''UTC'' FROM %I.%I AS gone',
      TG_TABLE_NAME, (SELECT string_agg(format('%1$L, gone.%1$I', key), ', ') FROM unnest(TG_ARGV) AS key),
      TG_TABLE_SCHEMA, TG_TABLE_NAME
    );
  END IF;
  RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION log_truncated_rows() FROM PUBLIC;

-- stackctl:allow dynamic-sql it creates triggers, whose definitions stand in the query
DO $migration$
DECLARE
  -- The mark is taken off by a stamp and by nothing else: not by an application that writes back a row it read before.
  not_a_stamp constant text :=
    'NOT (OLD."shouldUpdateSequenceId" AND NOT NEW."shouldUpdateSequenceId" AND NEW."sequenceId" IS NOT NULL '
    'AND (OLD."sequenceId" IS NULL OR NEW."sequenceId" > OLD."sequenceId"))';
  wanted record;
BEGIN
  FOR wanted IN
    WITH source (name, key) AS (VALUES
      ('ProjectUser', ARRAY['tenancyId', 'projectUserId']),
      ('ContactChannel', ARRAY['tenancyId', 'projectUserId', 'id']),
      ('Team', ARRAY['tenancyId', 'teamId']),
      ('TeamMember', ARRAY['tenancyId', 'projectUserId', 'teamId']),
      ('TeamMemberDirectPermission', ARRAY['tenancyId', 'projectUserId', 'teamId', 'permissionId']),
      ('ProjectUserDirectPermission', ARRAY['tenancyId', 'projectUserId', 'permissionId']),
      ('UserNotificationPreference', ARRAY['tenancyId', 'id']),
      ('ProjectUserRefreshToken', ARRAY['tenancyId', 'id']),
      ('ProjectUserOAuthAccount', ARRAY['tenancyId', 'id']),
      ('EmailOutbox', ARRAY['tenancyId', 'id'])
    ),
    spelled AS (
      SELECT name,
             (SELECT string_agg(quote_literal(k), ', ') FROM unnest(key) AS k) AS arguments,
             (SELECT string_agg(format('OLD.%1$I IS DISTINCT FROM NEW.%1$I', k), ' OR ') FROM unnest(key) AS k) AS moved
      FROM source
    ),
    -- `event` as in pg_trigger.tgtype: 8 delete, 16 update, 32 truncate. `handlers`: any of them does the job.
    needed (on_table, event, handlers, definition) AS (
      SELECT name, 8, ARRAY['log_deleted_row'],
             format('CREATE TRIGGER log_deleted_row AFTER DELETE ON %I FOR EACH ROW '
                    'EXECUTE FUNCTION log_deleted_row(%s)', name, arguments)
      FROM spelled
      UNION ALL
      SELECT name, 16, ARRAY['log_moved_row'],
             format('CREATE TRIGGER log_moved_row AFTER UPDATE ON %I FOR EACH ROW WHEN (%s) '
                    'EXECUTE FUNCTION log_moved_row(%s)', name, moved, arguments)
      FROM spelled
      UNION ALL
      SELECT name, 32, ARRAY['log_truncated_rows'],
             format('CREATE TRIGGER log_truncated_rows BEFORE TRUNCATE ON %I FOR EACH STATEMENT '
                    'EXECUTE FUNCTION log_truncated_rows(%s)', name, arguments)
      FROM spelled
      UNION ALL
      SELECT name, 16, ARRAY['reset_sequence_id_on_update'],
             format('CREATE TRIGGER reset_sequence_id_on_update BEFORE UPDATE ON %I FOR EACH ROW WHEN (%s) '
                    'EXECUTE FUNCTION reset_sequence_id_on_update()', name, not_a_stamp)
      FROM (SELECT name FROM source UNION ALL VALUES ('VerificationCode')) AS marked
      UNION ALL VALUES
        ('VerificationCode', 8, ARRAY['log_deleted_row', 'log_deleted_invitation'],
         'CREATE TRIGGER log_deleted_row AFTER DELETE ON "VerificationCode" FOR EACH ROW '
         'WHEN (OLD."type" = ''TEAM_INVITATION'') EXECUTE FUNCTION log_deleted_invitation()'),
        ('VerificationCode', 16, ARRAY['log_deleted_invitation'],
         'CREATE TRIGGER log_moved_row AFTER UPDATE ON "VerificationCode" FOR EACH ROW '
         'WHEN (OLD."type" = ''TEAM_INVITATION'' AND (NEW."type" <> ''TEAM_INVITATION'' OR OLD."id" <> NEW."id" '
         'OR OLD."projectId" <> NEW."projectId" OR OLD."branchId" <> NEW."branchId")) '
         'EXECUTE FUNCTION log_deleted_invitation()'),
        ('Tenancy', 8, ARRAY['log_orphaned_invitations'],
         'CREATE TRIGGER log_orphaned_invitations AFTER DELETE ON "Tenancy" FOR EACH ROW '
         'EXECUTE FUNCTION log_orphaned_invitations()'),
        ('Tenancy', 16, ARRAY['log_orphaned_invitations'],
         'CREATE TRIGGER log_orphaned_invitations_on_move AFTER UPDATE ON "Tenancy" FOR EACH ROW '
         'WHEN (OLD."projectId" <> NEW."projectId" OR OLD."branchId" <> NEW."branchId") '
         'EXECUTE FUNCTION log_orphaned_invitations()'),
        ('VerificationCode', 32, ARRAY['log_truncated_rows'],
         'CREATE TRIGGER log_truncated_rows BEFORE TRUNCATE ON "VerificationCode" FOR EACH STATEMENT '
         'EXECUTE FUNCTION log_truncated_rows()')
    )
    SELECT definition FROM needed AS n
    WHERE NOT EXISTS (
      SELECT FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid
      WHERE t.tgrelid = format('%I', n.on_table)::regclass AND t.tgtype & n.event <> 0 AND p.proname = ANY (n.handlers)
    )
  LOOP
    EXECUTE wanted.definition;
  END LOOP;
END $migration$;
