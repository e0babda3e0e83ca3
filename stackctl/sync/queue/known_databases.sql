-- name: list_known
SELECT tenancy_id, database_id, fingerprint FROM stackctl.known_database

-- name: record_known
INSERT INTO stackctl.known_database (tenancy_id, database_id, fingerprint)
SELECT * FROM unnest(%(tenancies)s::uuid[], %(databases)s::text[], %(fingerprints)s::text[]) AS k (t, d, f)
ORDER BY t, d
ON CONFLICT (tenancy_id, database_id) DO UPDATE SET fingerprint = EXCLUDED.fingerprint

-- name: forget_known
DELETE FROM stackctl.known_database
WHERE (tenancy_id, database_id) IN (SELECT * FROM unnest(%(tenancies)s::uuid[], %(databases)s::text[]))
