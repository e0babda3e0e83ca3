INSERT INTO "Tenancy" ("updatedAt", "projectId", "branchId", "hasNoOrganization")
SELECT now(), "id", 'main', 'TRUE' FROM "Project";
