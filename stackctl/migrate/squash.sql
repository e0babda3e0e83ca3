-- name: beside_the_dump
-- What files may set that no dump of ours holds, however small.
WITH own (oid, name, kind, tablespace) AS (
  SELECT c.oid, c.oid::regclass::text, c.relkind, c.reltablespace
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
  WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'stackctl')
)
SELECT concat_ws(' ', 'storage, compression, statistics target or options of column', own.name || '.' || quote_ident(a.attname))
FROM own JOIN pg_attribute AS a ON a.attrelid = own.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type AS t ON t.oid = a.atttypid
WHERE a.attstattarget >= 0
   OR own.kind IN ('r', 'p', 'm') AND (a.attstorage <> t.typstorage OR a.attcompression <> '' OR a.attoptions IS NOT NULL)
UNION ALL
SELECT 'the index that ' || i.indrelid::regclass || ' is clustered by'
FROM own JOIN pg_index AS i ON i.indexrelid = own.oid WHERE i.indisclustered
UNION ALL
SELECT 'the tablespace of ' || name FROM own WHERE tablespace <> 0
UNION ALL
SELECT 'NOT NULL of ' || own.name || ' without its children'
FROM own JOIN pg_constraint AS k ON k.conrelid = own.oid WHERE k.contype = 'n' AND k.connoinherit
UNION ALL
SELECT 'the comment on schema ' || n.nspname || ': ' || d.description
FROM pg_description AS d JOIN pg_namespace AS n ON n.oid = d.objoid AND d.classoid = 'pg_namespace'::regclass
UNION ALL
SELECT 'large object ' || oid FROM pg_largeobject_metadata
