-- name: tables
-- And whether rows of it lie in other tables: in partitions, or in those that inherit from it.
SELECT relname::text, relkind = 'p' OR EXISTS (SELECT FROM pg_catalog.pg_inherits AS i WHERE i.inhparent = c.oid)
FROM pg_catalog.pg_class AS c
WHERE relkind IN ('r', 'p') AND pg_catalog.pg_table_is_visible(oid) AND relnamespace <> 'pg_catalog'::regnamespace;

-- name: columns
SELECT a.attname::text FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
WHERE c.relname = %(table)s AND c.relkind IN ('r', 'p') AND pg_catalog.pg_table_is_visible(c.oid)
  AND a.attnum > 0 AND NOT a.attisdropped;

-- name: types
SELECT oid, typname::text, typtype::text FROM pg_catalog.pg_type WHERE oid = ANY (%(oids)s::oid[]);
