-- What lint asks a database.

-- name: table_size
SELECT sum(greatest(part.reltuples, 0))::bigint, sum(pg_table_size(part.oid))::bigint,
       bool_or(part.reltuples < 0 AND pg_relation_size(part.oid) > 0)
FROM pg_class AS t
JOIN pg_namespace AS n ON n.oid = t.relnamespace
CROSS JOIN LATERAL (
  SELECT t.oid UNION SELECT relid FROM pg_partition_tree(t.oid)
) AS tree (oid)
JOIN pg_class AS part ON part.oid = tree.oid
WHERE n.nspname = %(schema)s AND t.relname = %(table)s
HAVING count(*) > 0

-- name: is_partitioned
SELECT t.relkind = 'p' FROM pg_class AS t JOIN pg_namespace AS n ON n.oid = t.relnamespace
WHERE n.nspname = %(schema)s AND t.relname = %(table)s

-- name: not_null
SELECT a.attnotnull, array(
  SELECT pg_get_expr(c.conbin, c.conrelid) FROM pg_constraint AS c
  WHERE c.conrelid = t.oid AND c.contype = 'c' AND c.convalidated
)
FROM pg_class AS t
JOIN pg_namespace AS n ON n.oid = t.relnamespace
JOIN pg_attribute AS a ON a.attrelid = t.oid AND NOT a.attisdropped
WHERE n.nspname = %(schema)s AND t.relname = %(table)s AND a.attname = %(column)s

-- name: is_not_null_validated
-- PostgreSQL 18 gives NOT NULL a row of its own, which may be unvalidated.
SELECT NOT EXISTS (
  SELECT FROM pg_constraint AS c
  JOIN pg_class AS t ON t.oid = c.conrelid
  JOIN pg_namespace AS n ON n.oid = t.relnamespace
  JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum = ANY (c.conkey)
  WHERE n.nspname = %(schema)s AND t.relname = %(table)s AND a.attname = %(column)s AND c.contype = 'n' AND NOT c.convalidated
)

-- name: is_volatile
SELECT bool_or(p.provolatile = 'v') FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE p.proname = %(name)s AND CASE WHEN %(schema)s::text IS NULL THEN pg_function_is_visible(p.oid)
                                    ELSE n.nspname = %(schema)s END

-- name: column_type
SELECT old.typname::text, a.atttypmod, new.typname::text,
       EXISTS (
         SELECT FROM pg_cast AS c
         WHERE c.castsource = a.atttypid AND c.casttarget = new.oid AND c.castmethod = 'b'
       )
FROM pg_class AS t
JOIN pg_namespace AS n ON n.oid = t.relnamespace
JOIN pg_attribute AS a ON a.attrelid = t.oid AND NOT a.attisdropped
JOIN pg_type AS old ON old.oid = a.atttypid
JOIN pg_type AS new ON new.oid = to_regtype(%(new)s)
WHERE n.nspname = %(schema)s AND t.relname = %(table)s AND a.attname = %(column)s

-- name: is_strict_domain
-- Down to its base type: a check, NOT NULL, or a default whose function is volatile.
WITH RECURSIVE made_of AS (
  SELECT t.oid, t.typbasetype, t.typnotnull, t.typdefaultbin
  FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = t.typnamespace
  WHERE n.nspname = %(schema)s AND t.typname = %(name)s AND t.typtype = 'd'
  UNION ALL
  SELECT t.oid, t.typbasetype, t.typnotnull, t.typdefaultbin
  FROM made_of JOIN pg_type AS t ON t.oid = made_of.typbasetype AND t.typtype = 'd'
)
SELECT bool_or(
  typnotnull OR EXISTS (SELECT FROM pg_constraint AS c WHERE c.contypid = made_of.oid)
  OR EXISTS (
    SELECT FROM regexp_matches(typdefaultbin::text, ':(?:funcid|opfuncid) (\d+)', 'g') AS called (ids)
    JOIN pg_proc AS p ON p.oid = called.ids[1]::oid AND p.provolatile = 'v'
  )
)
FROM made_of

-- name: has_index
SELECT EXISTS (
  SELECT FROM pg_index AS i
  JOIN pg_class AS t ON t.oid = i.indrelid
  JOIN pg_namespace AS n ON n.oid = t.relnamespace
  WHERE n.nspname = %(schema)s AND t.relname = %(table)s AND i.indpred IS NULL AND i.indisvalid
    AND %(columns)s::text[] @> (
      SELECT array_agg(a.attname::text)
      FROM generate_series(0, cardinality(%(columns)s::text[]) - 1) AS place
      LEFT JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum = i.indkey[place]
    )
)
