-- What `status` asks the operated database. Nothing here scans a large table.

-- name: count_bounded
SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT {limit}) AS bounded

-- name: estimate_rows
EXPLAIN (FORMAT JSON) SELECT 1 FROM {table}

-- name: count_marked
SELECT count(*) FROM {table} WHERE "shouldUpdateSequenceId" AND {filter}

-- name: read_range_small
SELECT min("sequenceId"), max("sequenceId") FROM {table}

-- name: read_range_large
-- A large table is asked tenancy by tenancy: each end is one step in the index that begins with the tenancy.
SELECT min(low), max(high) FROM "Tenancy" AS t {each}
CROSS JOIN LATERAL (SELECT min("sequenceId") AS low, max("sequenceId") AS high
                    FROM {table} WHERE {owned} AND {filter}) AS ends

-- name: read_tenancys_part
SELECT coalesce(sum(rows), 0)::bigint, coalesce(sum(marked), 0)::bigint, min(low), max(high)
FROM (SELECT * FROM "Tenancy" WHERE id = {tenancy}) AS t {each}
CROSS JOIN LATERAL (SELECT count(*) AS rows, count(*) FILTER (WHERE "shouldUpdateSequenceId") AS marked,
                           min("sequenceId") AS low, max("sequenceId") AS high
                    FROM {table} WHERE {owned} AND {filter}) AS ends

-- name: read_stamp_time
SELECT stamped_at FROM stackctl.stamp_log WHERE up_to_sequence_id >= %(sequence_id)s
ORDER BY up_to_sequence_id LIMIT 1
