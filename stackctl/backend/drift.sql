-- The operated schema as it is, to be compared with what a live backend has.

-- name: list_columns
-- A column can be left out of an INSERT when it may be null, or something fills it.
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull,
       NOT a.attnotnull OR a.atthasdef OR a.attidentity <> ''
FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema()) AND c.relkind IN ('r', 'p')
  AND c.relname = ANY (%(tables)s) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY c.relname, a.attnum

-- name: list_indexes
SELECT t.relname, x.relname, i.indisprimary, i.indisunique AND i.indimmediate, i.indisvalid,
       (SELECT array_agg(trim(BOTH '"' FROM pg_get_indexdef(i.indexrelid, k, true)) ORDER BY k)
        FROM generate_series(1, i.indnkeyatts) AS k),
       pg_get_expr(i.indpred, i.indrelid)
FROM pg_index AS i JOIN pg_class AS t ON t.oid = i.indrelid JOIN pg_class AS x ON x.oid = i.indexrelid
WHERE t.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
  AND t.relname = ANY (%(tables)s)

-- name: list_enums
SELECT t.typname, array_agg(e.enumlabel::text ORDER BY e.enumsortorder)
FROM pg_type AS t JOIN pg_enum AS e ON e.enumtypid = t.oid
WHERE t.typnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
GROUP BY t.typname

-- name: list_functions
SELECT proname FROM pg_proc
WHERE pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema()) AND proname = ANY (%(names)s)
