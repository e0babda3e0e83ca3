-- What `status` asks the operated database. Nothing here scans a large table.

-- name: bounded_count
SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT {limit}) AS bounded

-- name: estimate
SELECT greatest(reltuples::bigint, {limit}) FROM pg_class WHERE oid = to_regclass({name})

-- name: pending
SELECT count(*) FROM {table} WHERE "shouldUpdateSequenceId" AND {filter}

-- name: range_small
SELECT min("sequenceId"), max("sequenceId") FROM {table}

-- name: range_large
-- A large table is asked tenancy by tenancy: each end is one step in the (tenancyId, sequenceId) index.
SELECT min(low), max(high) FROM "Tenancy" AS t
CROSS JOIN LATERAL (SELECT min("sequenceId") AS low, max("sequenceId") AS high
                    FROM {table} WHERE "tenancyId" = t.id) AS ends

-- name: range_of_tenancy
SELECT min("sequenceId"), max("sequenceId") FROM {table} WHERE "tenancyId" = %(tenancy)s

-- name: stamped_at
SELECT stamped_at FROM stackctl.stamp_log WHERE up_to_sequence_id >= %(sequence_id)s
ORDER BY up_to_sequence_id LIMIT 1
