-- SINGLE_STATEMENT_SENTINEL
-- RUN_OUTSIDE_TRANSACTION_SENTINEL
CREATE INDEX CONCURRENTLY "ProjectUser_displayName_idx" ON "ProjectUser" ("tenancyId", "displayName");
