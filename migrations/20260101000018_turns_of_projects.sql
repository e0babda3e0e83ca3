-- Codes know their tenancy by project and branch only. Those that wait for a stamp, in an order of these: so projects take
-- turns in stamping, and one with many codes holds up nobody. Two that share a number share their turns, too.
--
-- stackctl:outside-transaction
CREATE INDEX CONCURRENTLY IF NOT EXISTS "VerificationCode_turns_idx"
  ON "VerificationCode" ((lpad(to_hex(hashtextextended("projectId" || "branchId", 0)), 32, '0')::uuid))
  WHERE "shouldUpdateSequenceId";
