-- What a tenancy's configuration is: the branch's, overridden by the environment's.

-- name: list_tenancies
SELECT t.id, t."projectId", p."displayName", t."branchId", t."organizationId"
FROM "Tenancy" AS t LEFT JOIN "Project" AS p ON p.id = t."projectId"
ORDER BY t."projectId", t."branchId", t.id
LIMIT %(limit)s

-- name: find_tenancies
-- The best kind of match first: the id itself, the id of a project, the beginning of an id.
SELECT t.id, t."projectId", p."displayName", t."branchId", t."organizationId",
       CASE WHEN t.id = %(id)s THEN 1 WHEN t."projectId" = %(named)s THEN 2 ELSE 3 END AS kind
FROM "Tenancy" AS t LEFT JOIN "Project" AS p ON p.id = t."projectId"
WHERE t.id = %(id)s::uuid OR t."projectId" = %(named)s OR t.id BETWEEN %(lowest)s::uuid AND %(highest)s::uuid
ORDER BY kind, t.id
LIMIT %(limit)s

-- name: read_layers
SELECT t."projectId", t."branchId", b.config, e.config
FROM "Tenancy" AS t
LEFT JOIN "BranchConfigOverride" AS b ON b."projectId" = t."projectId" AND b."branchId" = t."branchId"
LEFT JOIN "EnvironmentConfigOverride" AS e ON e."projectId" = t."projectId" AND e."branchId" = t."branchId"
WHERE t.id = %(tenancy)s

-- name: lock_layers
-- Both layers are held, so that neither changes between the comparison and the commit.
SELECT (SELECT config FROM "BranchConfigOverride"
        WHERE "projectId" = %(project)s AND "branchId" = %(branch)s FOR UPDATE),
       (SELECT config FROM "EnvironmentConfigOverride"
        WHERE "projectId" = %(project)s AND "branchId" = %(branch)s FOR UPDATE)

-- name: set_lock_timeout
SELECT set_config('lock_timeout', %(timeout)s, TRUE)

-- name: update_config
UPDATE "EnvironmentConfigOverride" SET config = %(config)s::jsonb, "updatedAt" = now() AT TIME ZONE 'UTC'
WHERE "projectId" = %(project)s AND "branchId" = %(branch)s

-- name: insert_config
INSERT INTO "EnvironmentConfigOverride" ("projectId", "branchId", "updatedAt", config)
VALUES (%(project)s, %(branch)s, now() AT TIME ZONE 'UTC', %(config)s::jsonb)
ON CONFLICT DO NOTHING
