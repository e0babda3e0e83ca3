-- name: set_output_format
-- What the catalog's texts depend on. Names in the schema come out bare, and constants always in one form.
SELECT set_config('search_path', quote_ident(%(schema)s), true), set_config('DateStyle', 'ISO, YMD', true),
       set_config('IntervalStyle', 'postgres', true), set_config('TimeZone', 'UTC', true),
       set_config('extra_float_digits', '3', true), set_config('bytea_output', 'hex', true),
       set_config('quote_all_identifiers', 'off', true)

-- name: relations
SELECT c.oid::bigint, c.relname::text AS name, c.relkind::text AS kind,
       c.relpersistence = 'u' AS unlogged, c.relrowsecurity AS row_security, c.relforcerowsecurity AS force_row_security,
       coalesce(c.reloptions, '{}') AS options,
       pg_get_partkeydef(c.oid) AS partition_key,
       pg_get_expr(c.relpartbound, c.oid) AS partition_bound,
       ARRAY(SELECT i.inhparent::regclass::text FROM pg_inherits AS i
             WHERE i.inhrelid = c.oid ORDER BY i.inhseqno) AS parents,
       CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid, true) END AS query
FROM pg_class AS c
WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s) AND c.relkind IN ('r', 'p', 'v', 'm')
  AND NOT EXISTS (SELECT FROM pg_depend AS d
                  WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY c.relname COLLATE "C"

-- name: readable_tables
SELECT c.relname::text AS name
FROM pg_class AS c
WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s) AND c.relkind IN ('r', 'p')
  AND has_table_privilege(c.oid, 'SELECT')
ORDER BY c.relname COLLATE "C"

-- name: columns
SELECT c.oid::bigint AS relation, a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS type,
       a.attnotnull AS not_null,
       pg_get_expr(d.adbin, d.adrelid, true) AS expression,
       a.attidentity::text AS identity, a.attgenerated::text AS generated,
       a.attislocal AS is_local,
       CASE WHEN a.attcollation <> t.typcollation THEN
         (SELECT quote_ident(o.collname) FROM pg_collation AS o WHERE o.oid = a.attcollation) END AS collation
FROM pg_class AS c
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type AS t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s) AND c.relkind IN ('r', 'p', 'v', 'm')
ORDER BY c.oid, a.attnum

-- name: constraints
SELECT k.conname::text AS name, k.contype::text AS kind, c.relname::text AS table,
       ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS key (attnum, n)
             JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = key.attnum ORDER BY key.n) AS columns,
       pg_get_constraintdef(k.oid, true) AS definition,
       CASE WHEN k.contype = 'f' THEN k.confrelid::regclass::text END AS referenced,
       ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS key (attnum, n)
             JOIN pg_attribute AS a ON a.attrelid = k.confrelid AND a.attnum = key.attnum
             ORDER BY key.n) AS referenced_columns,
       k.confdeltype::text AS on_delete, k.conparentid <> 0 OR NOT k.conislocal AS inherited
FROM pg_constraint AS k
JOIN pg_class AS c ON c.oid = k.conrelid
WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s)
  AND k.contype IN ('c', 'f', 'p', 'u', 'x')
  -- A foreign key of a partitioned table has a row more for each partition it refers to.
  AND NOT EXISTS (SELECT FROM pg_constraint AS up WHERE up.oid = k.conparentid AND up.conrelid = k.conrelid)
ORDER BY c.relname COLLATE "C", array_position('{p,u,x,c,f}', k.contype), k.conname COLLATE "C"

-- name: indexes
SELECT c.relname::text AS name, t.relname::text AS table,
       -- With ONLY it would be made without the indexes of the partitions.
       CASE c.relkind WHEN 'I' THEN regexp_replace(pg_get_indexdef(i.indexrelid, 0, true), ' ON ONLY ', ' ON ')
       ELSE pg_get_indexdef(i.indexrelid, 0, true) END AS definition,
       EXISTS (SELECT FROM pg_inherits AS h WHERE h.inhrelid = c.oid) AS inherited, i.indisunique AS unique, i.indisvalid AS valid,
       ARRAY(SELECT a.attname::text FROM unnest(i.indkey::smallint[]) WITH ORDINALITY AS key (attnum, n)
             JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = key.attnum ORDER BY key.n) AS columns
FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid
JOIN pg_class AS t ON t.oid = i.indrelid
WHERE t.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s) AND t.relkind IN ('r', 'p', 'm')
  AND NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conindid = c.oid AND k.contype IN ('p', 'u', 'x'))
ORDER BY t.relname COLLATE "C", c.relname COLLATE "C"

-- name: types
SELECT t.oid::bigint, t.typname::text AS name, t.typtype::text AS kind,
       ARRAY(SELECT e.enumlabel::text FROM pg_enum AS e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder) AS labels,
       CASE t.typtype
         WHEN 'd' THEN concat_ws(' ', format_type(t.typbasetype, t.typtypmod), 'DEFAULT ' || t.typdefault,
           CASE WHEN t.typnotnull THEN 'NOT NULL' END,
           (SELECT string_agg('CONSTRAINT ' || quote_ident(k.conname) || ' ' || pg_get_constraintdef(k.oid, true), ' '
                              ORDER BY k.conname COLLATE "C")
            FROM pg_constraint AS k WHERE k.contypid = t.oid AND k.contype = 'c'))
         WHEN 'c' THEN (SELECT string_agg(quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod), ', '
                                          ORDER BY a.attnum)
                        FROM pg_attribute AS a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)
         WHEN 'r' THEN (SELECT 'subtype = ' || format_type(r.rngsubtype, NULL) FROM pg_range AS r
                        WHERE r.rngtypid = t.oid)
       END AS definition,
       CASE t.typtype WHEN 'd' THEN format_type(t.typbasetype, t.typtypmod) END AS base,
       CASE t.typtype WHEN 'd' THEN t.typdefault END AS "default",
       t.typtype = 'd' AND t.typnotnull AS not_null,
       ARRAY(SELECT 'CONSTRAINT ' || quote_ident(k.conname) || ' ' || pg_get_constraintdef(k.oid, true)
             FROM pg_constraint AS k WHERE k.contypid = t.oid AND k.contype = 'c'
             ORDER BY k.conname COLLATE "C") AS checks
FROM pg_type AS t
LEFT JOIN pg_class AS c ON c.oid = t.typrelid
WHERE t.typnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s)
  AND (t.typtype IN ('e', 'd', 'r') OR c.relkind = 'c')
  AND NOT EXISTS (SELECT FROM pg_depend AS d
                  WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e')
ORDER BY t.typname COLLATE "C"

-- name: routines
-- Those of an extension are left out, and those that come and go with a range type.
SELECT p.oid::bigint, p.proname::text AS name, p.prokind::text AS kind,
       ARRAY(SELECT format_type(type, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY AS a (type, n)
             ORDER BY n) AS arguments,
       coalesce(p.proargnames[1:p.pronargs], '{}') AS argument_names,
       p.pronargdefaults::int AS defaults,
       pg_get_function_result(p.oid) AS result,
       quote_ident(p.proname) || '(' || pg_get_function_identity_arguments(p.oid) || ')' AS identity,
       CASE WHEN p.prokind <> 'a' THEN
         regexp_replace(pg_get_functiondef(p.oid), '^(CREATE OR REPLACE \w+ )' ||
                        regexp_replace(quote_ident(n.nspname), '([^\w])', '\\\1', 'g') || '\.', '\1')
       ELSE (SELECT format('CREATE AGGREGATE %%I(%%s) (%%s)', p.proname, pg_get_function_identity_arguments(p.oid),
               concat_ws(', ', 'sfunc = ' || g.aggtransfn::regproc, 'stype = ' || format_type(g.aggtranstype, NULL),
                 'finalfunc = ' || nullif(g.aggfinalfn::regproc::text, '-'),
                 'combinefunc = ' || nullif(g.aggcombinefn::regproc::text, '-'),
                 'initcond = ' || quote_literal(g.agginitval)))
             FROM pg_aggregate AS g WHERE g.aggfnoid = p.oid)
       END AS definition
FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname = %(schema)s
  AND NOT EXISTS (SELECT FROM pg_depend AS d
                  WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype IN ('e', 'i'))
ORDER BY p.proname COLLATE "C", p.pronargs, pg_get_function_identity_arguments(p.oid) COLLATE "C"

-- name: triggers
SELECT t.tgname::text AS name, c.relname::text AS table, pg_get_triggerdef(t.oid, true) AS definition,
       t.tgenabled::text AS enabled
FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s)
  AND NOT t.tgisinternal AND t.tgparentid = 0
ORDER BY c.relname COLLATE "C", t.tgname COLLATE "C"

-- name: policies
SELECT p.polname::text AS name, c.relname::text AS table,
       concat_ws(' ', CASE WHEN NOT p.polpermissive THEN 'AS RESTRICTIVE' END,
         'FOR ' || CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
                                 WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
         'TO ' || (SELECT string_agg(CASE WHEN role = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(role)) END, ', '
                                     ORDER BY pg_get_userbyid(role)) FROM unnest(p.polroles) AS role),
         'USING (' || pg_get_expr(p.polqual, p.polrelid, true) || ')',
         'WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid, true) || ')') AS definition
FROM pg_policy AS p JOIN pg_class AS c ON c.oid = p.polrelid
WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s)
ORDER BY c.relname COLLATE "C", p.polname COLLATE "C"

-- name: sequences
SELECT c.oid::bigint, c.relname::text AS name, format_type(s.seqtypid, NULL) AS type, s.seqstart AS start,
       s.seqincrement AS increment, s.seqmin AS minimum, s.seqmax AS maximum, s.seqcache AS cache, s.seqcycle AS cycle,
       o.relname::text AS owner_table, a.attname::text AS owner_column, coalesce(d.deptype = 'i', false) AS identity
FROM pg_sequence AS s
JOIN pg_class AS c ON c.oid = s.seqrelid
LEFT JOIN pg_depend AS d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')
                         AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0
LEFT JOIN pg_class AS o ON o.oid = d.refobjid
LEFT JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s) AND c.relpersistence <> 't'
  AND NOT EXISTS (SELECT FROM pg_depend AS e
                  WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')
ORDER BY c.relname COLLATE "C"

-- name: grants
-- What the owner has is left out: who owns a thing is no part of a schema.
WITH object (kind, name, "column", owner, acl, usual) AS (
  SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, quote_ident(c.relname), NULL::text, c.relowner,
         c.relacl, NULL::aclitem[]
  FROM pg_class AS c
  WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s)
    AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
  UNION ALL
  SELECT 'TABLE', quote_ident(c.relname), quote_ident(a.attname), c.relowner, a.attacl, NULL
  FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attacl IS NOT NULL AND NOT a.attisdropped
  WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s)
    AND c.relkind IN ('r', 'p', 'v', 'm')
  UNION ALL
  SELECT CASE p.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END,
         quote_ident(p.proname) || '(' || pg_get_function_identity_arguments(p.oid) || ')', NULL, p.proowner,
         coalesce(p.proacl, acldefault('f', p.proowner)), acldefault('f', p.proowner)
  FROM pg_proc AS p WHERE p.pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s)
    AND NOT EXISTS (SELECT FROM pg_depend AS d
                    WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype IN ('e', 'i'))
  UNION ALL
  SELECT 'SCHEMA', quote_ident(n.nspname), NULL, n.nspowner, n.nspacl, NULL
  FROM pg_namespace AS n WHERE n.nspname = %(schema)s
)
SELECT o.kind, o.name, o.column, CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END
         AS grantee, g.privilege_type AS privilege, g.is_grantable AS grantable,
       EXISTS (SELECT FROM aclexplode(o.usual) AS u
               WHERE u.grantee = g.grantee AND u.privilege_type = g.privilege_type) AS usual
FROM object AS o, aclexplode(o.acl) AS g
WHERE g.grantee <> o.owner
ORDER BY array_position('{SCHEMA,TABLE,SEQUENCE,FUNCTION,PROCEDURE}', o.kind), o.name COLLATE "C",
         o.column COLLATE "C" NULLS FIRST, pg_get_userbyid(g.grantee) COLLATE "C",
         g.privilege_type

-- name: comments
-- `words`: what COMMENT ON calls the kind; `name` and `relation`: what follows it; `thing`: as in things.sql.
WITH relation (oid, name, words, key) AS (
  SELECT c.oid, quote_ident(c.relname),
         CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' WHEN 'i' THEN 'INDEX'
           WHEN 'I' THEN 'INDEX' WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END,
         ARRAY[CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'view' WHEN 'S' THEN 'sequence' WHEN 'i' THEN 'index'
                 WHEN 'I' THEN 'index' WHEN 'c' THEN 'type' ELSE 'table' END, c.relname::text]
  FROM pg_class AS c
  WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s)
),
thing (class, oid, part, words, name, relation, key) AS (
  SELECT 'pg_class'::regclass, r.oid, 0, r.words, r.name, NULL,
         CASE WHEN k.oid IS NULL THEN r.key ELSE ARRAY['constraint', c.relname::text, k.conname::text] END
  FROM relation AS r
  LEFT JOIN pg_constraint AS k ON k.conindid = r.oid AND k.contype IN ('p', 'u', 'x')
  LEFT JOIN pg_class AS c ON c.oid = k.conrelid
  WHERE r.words <> 'TYPE'
  UNION ALL
  SELECT 'pg_class'::regclass, r.oid, a.attnum, 'COLUMN', r.name || '.' || quote_ident(a.attname), NULL,
         CASE r.words WHEN 'TYPE' THEN r.key ELSE ARRAY['column', r.key[2], a.attname::text] END
  FROM relation AS r JOIN pg_attribute AS a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
  UNION ALL
  SELECT 'pg_constraint'::regclass, k.oid, 0, 'CONSTRAINT', quote_ident(k.conname), r.name,
         ARRAY['constraint', r.key[2], k.conname::text]
  FROM relation AS r JOIN pg_constraint AS k ON k.conrelid = r.oid
  UNION ALL
  SELECT 'pg_trigger'::regclass, t.oid, 0, 'TRIGGER', quote_ident(t.tgname), r.name,
         ARRAY['trigger', r.key[2], t.tgname::text]
  FROM relation AS r JOIN pg_trigger AS t ON t.tgrelid = r.oid
  UNION ALL
  SELECT 'pg_policy'::regclass, p.oid, 0, 'POLICY', quote_ident(p.polname), r.name,
         ARRAY['policy', r.key[2], p.polname::text]
  FROM relation AS r JOIN pg_policy AS p ON p.polrelid = r.oid
  UNION ALL
  SELECT 'pg_type'::regclass, t.oid, 0, CASE t.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, quote_ident(t.typname),
         NULL, ARRAY['type', t.typname::text]
  FROM pg_type AS t WHERE t.typnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s)
  UNION ALL
  SELECT 'pg_proc'::regclass, p.oid, 0,
         CASE p.prokind WHEN 'p' THEN 'PROCEDURE' WHEN 'a' THEN 'AGGREGATE' ELSE 'FUNCTION' END,
         quote_ident(p.proname) || '(' || pg_get_function_identity_arguments(p.oid) || ')', NULL,
         ARRAY['routine', p.proname || '(' || array_to_string(ARRAY(
           SELECT format_type(type, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY AS a (type, n) ORDER BY n), ', ')
           || ')']
  FROM pg_proc AS p WHERE p.pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s)
)
SELECT thing.words, thing.name, thing.relation, d.description AS text, thing.key AS thing
FROM thing JOIN pg_description AS d ON d.classoid = thing.class AND d.objoid = thing.oid AND d.objsubid = thing.part
WHERE NOT EXISTS (SELECT FROM pg_depend AS e
                  WHERE e.classid = thing.class AND e.objid = thing.oid AND e.deptype = 'e')
ORDER BY thing.words, thing.relation COLLATE "C" NULLS FIRST, thing.name COLLATE "C"

-- name: extensions
SELECT e.extname::text AS name, n.nspname::text AS schema
FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
WHERE e.extname <> 'plpgsql' ORDER BY e.extname COLLATE "C"

-- name: needed_schemas
WITH thing (class, oid, namespace) AS NOT MATERIALIZED (
  SELECT 'pg_class'::regclass, oid, relnamespace FROM pg_class
  UNION ALL SELECT 'pg_proc'::regclass, oid, pronamespace FROM pg_proc
  UNION ALL SELECT 'pg_type'::regclass, oid, typnamespace FROM pg_type
  UNION ALL SELECT 'pg_constraint'::regclass, oid, connamespace FROM pg_constraint
  UNION ALL SELECT 'pg_trigger'::regclass, t.oid, c.relnamespace FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = tgrelid
  UNION ALL SELECT 'pg_attrdef'::regclass, d.oid, c.relnamespace FROM pg_attrdef AS d JOIN pg_class AS c ON c.oid = adrelid
  UNION ALL SELECT 'pg_rewrite'::regclass, r.oid, c.relnamespace FROM pg_rewrite AS r JOIN pg_class AS c ON c.oid = ev_class
)
SELECT DISTINCT n.nspname::text AS schema
FROM pg_depend AS d
JOIN thing AS own ON own.class = d.classid AND own.oid = d.objid
JOIN thing AS other ON other.class = d.refclassid AND other.oid = d.refobjid
JOIN pg_namespace AS n ON n.oid = other.namespace
WHERE own.namespace = (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s) AND other.namespace <> own.namespace
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND NOT EXISTS (SELECT FROM pg_depend AS e
                  WHERE e.classid = d.refclassid AND e.objid = d.refobjid AND e.deptype = 'e')
ORDER BY 1

-- name: dependencies
-- What has to exist first. A default or a view's rule counts for its relation, a row type for its table.
WITH needs AS (
  SELECT CASE WHEN d.classid = 'pg_attrdef'::regclass THEN (SELECT adrelid FROM pg_attrdef WHERE oid = d.objid)
              WHEN d.classid = 'pg_rewrite'::regclass THEN (SELECT ev_class FROM pg_rewrite WHERE oid = d.objid)
              WHEN d.classid = 'pg_constraint'::regclass THEN
                (SELECT coalesce(nullif(conrelid, 0), contypid) FROM pg_constraint
                 WHERE oid = d.objid AND contype <> 'f')
              WHEN d.classid = 'pg_class'::regclass THEN
                coalesce((SELECT reltype FROM pg_class WHERE oid = d.objid AND relkind = 'c'), d.objid)
              ELSE d.objid END AS object,
         CASE WHEN d.refclassid = 'pg_type'::regclass THEN
                (SELECT coalesce(nullif((SELECT c.oid FROM pg_class AS c WHERE c.oid = e.typrelid AND c.relkind <> 'c'),
                                        0), e.oid)
                 FROM pg_type AS t JOIN pg_type AS e ON e.oid = CASE WHEN t.typcategory = 'A' AND t.typtype = 'b'
                                                                     THEN t.typelem ELSE t.oid END WHERE t.oid = d.refobjid)
              ELSE d.refobjid END AS needed
  FROM pg_depend AS d
  WHERE d.deptype IN ('n', 'a')
    AND d.classid IN ('pg_attrdef'::regclass, 'pg_rewrite'::regclass, 'pg_constraint'::regclass, 'pg_class'::regclass,
                      'pg_proc'::regclass, 'pg_type'::regclass)
    AND d.refclassid IN ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_type'::regclass)
    AND NOT (d.deptype = 'a' AND d.classid = 'pg_class'::regclass
             AND (SELECT relkind FROM pg_class WHERE oid = d.objid) = 'S')
)
SELECT DISTINCT object::bigint, needed::bigint FROM needs
WHERE object <> needed AND object IS NOT NULL AND needed IS NOT NULL
