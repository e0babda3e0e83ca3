-- A deleted contact channel is looked up by its id, in case it came back under another user. The primary key has the user
-- before the id.
--
-- stackctl:outside-transaction
CREATE INDEX CONCURRENTLY IF NOT EXISTS "ContactChannel_tenancyId_id_idx" ON "ContactChannel" ("tenancyId", "id");
