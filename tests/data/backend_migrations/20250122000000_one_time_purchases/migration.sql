CREATE TABLE "OneTimePurchase" (
    "id" UUID NOT NULL DEFAULT gen_random_uuid(),
    "tenancyId" UUID NOT NULL,
    "customerId" TEXT NOT NULL,
    "customerType" "CustomerType" NOT NULL,
    "product" JSONB NOT NULL,
    "quantity" INTEGER NOT NULL,
    "stripePaymentIntentId" TEXT,
    "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "OneTimePurchase_pkey" PRIMARY KEY ("tenancyId", "id")
);
-- SPLIT_STATEMENT_SENTINEL
-- RUN_OUTSIDE_TRANSACTION_SENTINEL
CREATE UNIQUE INDEX CONCURRENTLY "OneTimePurchase_stripePaymentIntentId_key"
    ON "OneTimePurchase" ("tenancyId", "stripePaymentIntentId");
-- SPLIT_STATEMENT_SENTINEL
COMMENT ON TABLE "OneTimePurchase" IS 'paid once; a payment intent is bought by nobody twice';
