-- What is switched off within the poller. A null stands for all tenancies, databases or mappings.

-- name: list_pauses
SELECT tenancy_id, database_id, mapping, reason, paused_by, paused_at FROM stackctl.pause
ORDER BY paused_at, tenancy_id, database_id, mapping

-- name: add_pause
-- Whoever comes second leaves what the first one said.
INSERT INTO stackctl.pause (tenancy_id, database_id, mapping, reason, paused_by)
VALUES (%(tenancy)s, %(database)s, %(mapping)s, %(reason)s, %(by)s)
ON CONFLICT DO NOTHING

-- name: remove_pause
DELETE FROM stackctl.pause
WHERE tenancy_id IS NOT DISTINCT FROM %(tenancy)s::uuid AND database_id IS NOT DISTINCT FROM %(database)s::text
  AND mapping IS NOT DISTINCT FROM %(mapping)s::text
