-- A table given another shape in place: what it looks like, and what hangs on columns that go or get another type.

-- name: read_shape
SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull FROM pg_attribute AS a
WHERE a.attrelid = to_regclass(quote_ident(%(table)s)) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum

-- name: has_checks
-- Whether a row could be refused for having no values in these columns.
SELECT EXISTS (
    SELECT FROM pg_constraint AS c JOIN pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey)
    WHERE c.conrelid = to_regclass(quote_ident(%(table)s)) AND c.contype = 'c' AND a.attname = ANY (%(columns)s))

-- name: find_key_constraints
SELECT conname FROM pg_constraint WHERE conrelid = to_regclass(quote_ident(%(table)s)) AND contype = 'p'

-- name: lock_table
SET LOCAL lock_timeout = '2s'

-- name: list_views
-- The views that read these columns, and those that read them in turn, each before the ones that it reads: how each is
-- dropped, how it is made again, and whether more hangs on it than that.
WITH RECURSIVE dependent AS (
    SELECT r.ev_class AS id, 1 AS depth
    FROM pg_depend AS d JOIN pg_rewrite AS r ON r.oid = d.objid
    JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
      AND d.refobjid = to_regclass(quote_ident(%(table)s)) AND a.attname = ANY (%(columns)s)
    UNION
    SELECT r.ev_class, v.depth + 1
    FROM dependent AS v
    JOIN pg_depend AS d ON d.refobjid = v.id AND d.refclassid = 'pg_class'::regclass
    JOIN pg_rewrite AS r ON r.oid = d.objid AND d.classid = 'pg_rewrite'::regclass
    WHERE r.ev_class <> v.id
)
SELECT v.id::regclass::text,
  'DROP ' || kind || ' ' || v.id::regclass,
  array_remove(
    ARRAY[
        'CREATE ' || kind || ' ' || v.id::regclass
        || coalesce(' WITH (' || array_to_string(c.reloptions, ', ') || ')', '')
        || ' AS ' || rtrim(pg_get_viewdef(v.id), ';'),
        'ALTER ' || kind || ' ' || v.id::regclass || ' OWNER TO ' || quote_ident(pg_get_userbyid(c.relowner)),
        'COMMENT ON ' || kind || ' ' || v.id::regclass || ' IS ' || quote_literal(obj_description(v.id, 'pg_class'))
    ]
    || ARRAY(SELECT pg_get_indexdef(i.indexrelid) FROM pg_index AS i WHERE i.indrelid = v.id)
    || ARRAY(
        SELECT format('GRANT %%s ON %%s TO %%s', p.privilege_type, v.id::regclass,
                      CASE p.grantee WHEN 0 THEN 'PUBLIC' ELSE p.grantee::regrole::text END)
               || CASE WHEN p.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
        FROM aclexplode(c.relacl) AS p WHERE p.grantee <> c.relowner)
    || ARRAY(
        SELECT format('GRANT %%s (%%I) ON %%s TO %%s', p.privilege_type, a.attname, v.id::regclass,
                      CASE p.grantee WHEN 0 THEN 'PUBLIC' ELSE p.grantee::regrole::text END)
        FROM pg_attribute AS a, aclexplode(a.attacl) AS p WHERE a.attrelid = v.id), NULL),
  EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgrelid = v.id)
  OR (SELECT count(*) FROM pg_rewrite AS r WHERE r.ev_class = v.id) > 1
  OR c.relkind NOT IN ('v', 'm')
FROM (SELECT id, max(depth) AS depth FROM dependent GROUP BY id) AS v
JOIN pg_class AS c ON c.oid = v.id,
LATERAL (SELECT CASE c.relkind WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'VIEW' END AS kind) AS k
ORDER BY v.depth DESC, v.id

-- name: list_attached
-- What goes with these columns when they are dropped, and is made again on others of their names.
SELECT conname::text,
       format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s', conrelid::regclass, conname, pg_get_constraintdef(oid))
FROM pg_constraint
WHERE conrelid = to_regclass(quote_ident(%(table)s)) AND contype IN ('u', 'c', 'f')
  AND conkey && ARRAY(SELECT a.attnum FROM pg_attribute AS a
                      WHERE a.attrelid = conrelid AND a.attname = ANY (%(columns)s))
UNION ALL
SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid)
FROM pg_index AS i
WHERE i.indrelid = to_regclass(quote_ident(%(table)s)) AND NOT i.indisprimary
  AND NOT EXISTS (SELECT FROM pg_constraint AS c WHERE c.conindid = i.indexrelid AND c.conrelid = i.indrelid)
  AND EXISTS (SELECT FROM pg_depend AS d
              JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
              WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid AND d.refobjid = i.indrelid
                AND a.attname = ANY (%(columns)s))
UNION ALL
SELECT 'a comment', format('COMMENT ON COLUMN %%s.%%I IS %%L', a.attrelid::regclass, a.attname,
                           col_description(a.attrelid, a.attnum))
FROM pg_attribute AS a
WHERE a.attrelid = to_regclass(quote_ident(%(table)s)) AND a.attname = ANY (%(columns)s)
  AND col_description(a.attrelid, a.attnum) IS NOT NULL
UNION ALL
SELECT 'a grant', format('GRANT %%s (%%I) ON %%s TO %%s', p.privilege_type, a.attname, a.attrelid::regclass,
                         CASE p.grantee WHEN 0 THEN 'PUBLIC' ELSE p.grantee::regrole::text END)
FROM pg_attribute AS a, aclexplode(a.attacl) AS p
WHERE a.attrelid = to_regclass(quote_ident(%(table)s)) AND a.attname = ANY (%(columns)s)
