-- SPLIT_STATEMENT_SENTINEL
-- SINGLE_STATEMENT_SENTINEL
-- CONDITIONALLY_REPEAT_MIGRATION_SENTINEL
WITH batch AS (
    SELECT "projectId", "projectUserId", "id" FROM /* SCHEMA_NAME_SENTINEL */."ContactChannel"
    WHERE "value" <> lower(trim("value")) LIMIT 100
), changed AS (
    UPDATE /* SCHEMA_NAME_SENTINEL */."ContactChannel" AS c SET "value" = c."value"
    FROM batch AS b
    WHERE c."projectId" = b."projectId" AND c."projectUserId" = b."projectUserId" AND c."id" = b."id"
    RETURNING 1
)
-- No row at all is an answer as well: nothing was left to do.
SELECT true AS should_repeat_migration FROM changed LIMIT 1;
