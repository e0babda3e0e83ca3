ALTER TABLE "OneTimePurchase" ADD COLUMN "refundedAt" TIMESTAMP(3);
ALTER TABLE "Subscription" ADD COLUMN "refundedAt" TIMESTAMP(3);
