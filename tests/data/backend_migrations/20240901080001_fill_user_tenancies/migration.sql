-- SPLIT_STATEMENT_SENTINEL
-- SINGLE_STATEMENT_SENTINEL
-- CONDITIONALLY_REPEAT_MIGRATION_SENTINEL
WITH batch AS (
    SELECT "projectId", "projectUserId" FROM /* SCHEMA_NAME_SENTINEL */."ProjectUser"
    WHERE "tenancyId" IS NULL ORDER BY 1, 2 LIMIT 100 FOR UPDATE SKIP LOCKED
), filled AS (
    UPDATE /* SCHEMA_NAME_SENTINEL */."ProjectUser" AS u SET "tenancyId" = t."id"
    FROM batch AS b JOIN /* SCHEMA_NAME_SENTINEL */."Tenancy" AS t ON t."projectId" = b."projectId" AND t."branchId" = 'main'
    WHERE u."projectId" = b."projectId" AND u."projectUserId" = b."projectUserId"
    RETURNING 1
)
SELECT EXISTS (SELECT 1 FROM filled) AS should_repeat_migration,
       (SELECT count(*) FROM /* SCHEMA_NAME_SENTINEL */."ProjectUser" WHERE "tenancyId" IS NULL)
         - (SELECT count(*) FROM filled) AS remaining;
