-- What the backend's own configuration says of external databases.

-- name: read_fingerprint
-- Other whenever a row of either table was written; costs a tenth of reading what the rows say.
SELECT (SELECT bit_xor(hashtextextended(xmin::text || ctid::text, 0)) FROM "EnvironmentConfigOverride"),
       (SELECT bit_xor(hashtextextended(xmin::text || ctid::text, 0)) FROM "Tenancy")

-- name: list_configured
-- One row for each tenancy whose configuration mentions `dbSync`: that part of it, as it stands, as text. A branch's
-- configuration is that of its tenancy without an organization; those of organizations have it only where no such is.
SELECT t.id, d.config::text
FROM "EnvironmentConfigOverride" AS c
CROSS JOIN LATERAL (
    SELECT jsonb_object_agg(key, value) AS config
    FROM jsonb_each(CASE jsonb_typeof(c.config) WHEN 'object' THEN c.config ELSE '{}' END)
    WHERE key = 'dbSync' OR key LIKE 'dbSync.%'
) AS d
JOIN "Tenancy" AS t ON t."projectId" = c."projectId" AND t."branchId" = c."branchId"
WHERE d.config IS NOT NULL
  AND (t."organizationId" IS NULL OR NOT EXISTS (
      SELECT FROM "Tenancy" AS own
      WHERE own."projectId" = c."projectId" AND own."branchId" = c."branchId" AND own."organizationId" IS NULL))
ORDER BY t.id
