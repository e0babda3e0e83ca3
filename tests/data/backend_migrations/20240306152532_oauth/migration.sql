CREATE TYPE "OAuthProviderType" AS ENUM ('GITHUB', 'GOOGLE');

CREATE TABLE "ProjectUserOAuthAccount" (
    "projectId" TEXT NOT NULL,
    "projectUserId" UUID NOT NULL,
    "provider" "OAuthProviderType" NOT NULL,
    "providerAccountId" TEXT NOT NULL,
    "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "ProjectUserOAuthAccount_pkey" PRIMARY KEY ("projectId", "provider", "providerAccountId")
);

ALTER TABLE "ProjectUserOAuthAccount" ADD CONSTRAINT "ProjectUserOAuthAccount_user_fkey" FOREIGN KEY ("projectId", "projectUserId") REFERENCES "ProjectUser"("projectId", "projectUserId") ON DELETE CASCADE ON UPDATE CASCADE;
