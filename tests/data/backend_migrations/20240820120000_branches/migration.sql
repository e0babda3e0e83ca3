CREATE TABLE "Tenancy" (
    "id" UUID NOT NULL DEFAULT gen_random_uuid(),
    "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" TIMESTAMP(3) NOT NULL,
    "projectId" TEXT NOT NULL,
    "branchId" TEXT NOT NULL,
    "organizationId" UUID,
    "hasNoOrganization" "BooleanTrue",

    CONSTRAINT "Tenancy_pkey" PRIMARY KEY ("id"),
    CONSTRAINT "Tenancy_projectId_fkey" FOREIGN KEY ("projectId") REFERENCES "Project"("id") ON DELETE CASCADE ON UPDATE CASCADE,
    CONSTRAINT "Tenancy_organization_check" CHECK (("organizationId" IS NULL) = ("hasNoOrganization" IS NOT NULL))
);
CREATE UNIQUE INDEX "Tenancy_organization_key" ON "Tenancy"("projectId", "branchId", "organizationId");
CREATE UNIQUE INDEX "Tenancy_noOrganization_key" ON "Tenancy"("projectId", "branchId", "hasNoOrganization");
