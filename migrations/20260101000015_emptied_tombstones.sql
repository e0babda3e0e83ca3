-- Finds the tombstones that still hold the row that went. Once stamped, one needs nothing but the row's key: the sequencer
-- takes the rest away with the stamp, and the sweep from those that were stamped otherwise.
--
-- stackctl:outside-transaction
CREATE INDEX CONCURRENTLY IF NOT EXISTS "DeletedRow_to_empty_idx" ON "DeletedRow" ("sequenceId")
  WHERE "data" IS NOT NULL AND NOT "shouldUpdateSequenceId";
