-- SPLIT_STATEMENT_SENTINEL
-- SINGLE_STATEMENT_SENTINEL
-- CONDITIONALLY_REPEAT_MIGRATION_SENTINEL
WITH filled AS (
    UPDATE "ProjectUser" SET "lastActiveAt" = "createdAt"
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM "ProjectUser" WHERE "lastActiveAt" IS NULL LIMIT 100))
    RETURNING 1
)
SELECT count(*) > 0 AS should_repeat_migration FROM filled;
-- SPLIT_STATEMENT_SENTINEL
ALTER TABLE "ProjectUser" ALTER COLUMN "lastActiveAt" SET DEFAULT now();
