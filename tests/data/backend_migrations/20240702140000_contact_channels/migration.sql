CREATE TYPE "ContactChannelType" AS ENUM ('EMAIL');

CREATE TABLE "ContactChannel" (
    "projectId" TEXT NOT NULL,
    "id" UUID NOT NULL DEFAULT gen_random_uuid(),
    "projectUserId" UUID NOT NULL,
    "type" "ContactChannelType" NOT NULL,
    "isPrimary" "BooleanTrue",
    "isVerified" BOOLEAN NOT NULL,
    "value" TEXT NOT NULL,

    CONSTRAINT "ContactChannel_pkey" PRIMARY KEY ("projectId", "projectUserId", "id")
);
CREATE UNIQUE INDEX "ContactChannel_primary_key" ON "ContactChannel"("projectId", "projectUserId", "type", "isPrimary");
ALTER TABLE "ContactChannel" ADD CONSTRAINT "ContactChannel_user_fkey" FOREIGN KEY ("projectId", "projectUserId") REFERENCES "ProjectUser"("projectId", "projectUserId") ON DELETE CASCADE;
