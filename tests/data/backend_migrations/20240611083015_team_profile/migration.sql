ALTER TABLE "Team" ADD COLUMN "profileImageUrl" TEXT;
ALTER TABLE "Team" ADD COLUMN "clientMetadata" JSONB;
