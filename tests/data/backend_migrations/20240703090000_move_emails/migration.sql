-- Every address becomes a contact channel, in batches; the file runs again until none is left.
-- SPLIT_STATEMENT_SENTINEL
-- SINGLE_STATEMENT_SENTINEL
-- CONDITIONALLY_REPEAT_MIGRATION_SENTINEL
WITH batch AS (
    SELECT u."projectId", u."projectUserId", u."primaryEmail", u."primaryEmailVerified"
    FROM /* SCHEMA_NAME_SENTINEL */."ProjectUser" AS u
    WHERE u."primaryEmail" IS NOT NULL
      AND NOT EXISTS (
        SELECT 1 FROM /* SCHEMA_NAME_SENTINEL */."ContactChannel" AS c
        WHERE c."projectId" = u."projectId" AND c."projectUserId" = u."projectUserId"
      )
    ORDER BY u."projectId", u."projectUserId"
    LIMIT 100
), moved AS (
    INSERT INTO /* SCHEMA_NAME_SENTINEL */."ContactChannel" ("projectId", "projectUserId", "type", "isPrimary", "isVerified", "value")
    SELECT "projectId", "projectUserId", 'EMAIL', 'TRUE', "primaryEmailVerified", "primaryEmail" FROM batch
    RETURNING 1
)
SELECT EXISTS (SELECT 1 FROM moved) AS should_repeat_migration;
