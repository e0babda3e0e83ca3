CREATE TABLE "Team" (
    "projectId" TEXT NOT NULL,
    "teamId" UUID NOT NULL,
    "displayName" TEXT NOT NULL,
    "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "Team_pkey" PRIMARY KEY ("projectId", "teamId")
);

CREATE TABLE "TeamMember" (
    "projectId" TEXT NOT NULL,
    "projectUserId" UUID NOT NULL,
    "teamId" UUID NOT NULL,

    CONSTRAINT "TeamMember_pkey" PRIMARY KEY ("projectId", "projectUserId", "teamId")
);

ALTER TABLE "TeamMember" ADD CONSTRAINT "TeamMember_user_fkey" FOREIGN KEY ("projectId", "projectUserId") REFERENCES "ProjectUser"("projectId", "projectUserId") ON DELETE CASCADE;
ALTER TABLE "TeamMember" ADD CONSTRAINT "TeamMember_team_fkey" FOREIGN KEY ("projectId", "teamId") REFERENCES "Team"("projectId", "teamId") ON DELETE CASCADE;
