-- name: needs
-- What has to be there first, thing by thing. A thing is named as stackctl.migrate.schema.things does it; the parts of
-- one (an identity column's sequence, a constraint's index, an array of a type) count as it.
WITH home (oid) AS (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s),
relation (oid, name, kind, thing) AS (
  SELECT c.oid, c.relname::text, c.relkind, CASE WHEN c.relkind IN ('r', 'p') THEN 'table' ELSE 'view' END
  FROM pg_class AS c WHERE c.relnamespace = (SELECT oid FROM home) AND c.relkind IN ('r', 'p', 'v', 'm')
),
type (oid, key) AS (
  SELECT t.oid, CASE WHEN r.oid IS NOT NULL THEN ARRAY[r.thing, r.name] ELSE ARRAY['type', t.typname::text] END
  FROM pg_type AS t LEFT JOIN relation AS r ON r.oid = t.typrelid
  WHERE t.typnamespace = (SELECT oid FROM home) AND t.typtype <> 'm'
    AND NOT (t.typcategory = 'A' AND t.typtype = 'b')  -- a domain over an array has its category
),
address (class, id, part, key) AS (
  SELECT 'pg_class'::regclass, oid, 0, ARRAY[thing, name] FROM relation
  UNION ALL
  SELECT 'pg_class'::regclass, r.oid, a.attnum, ARRAY['column', r.name, a.attname::text]
  FROM relation AS r JOIN pg_attribute AS a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
  UNION ALL
  SELECT 'pg_attrdef'::regclass, d.oid, 0,
         ARRAY[CASE WHEN a.attgenerated <> '' THEN 'column' ELSE 'default' END, r.name, a.attname::text]
  FROM relation AS r JOIN pg_attrdef AS d ON d.adrelid = r.oid
  JOIN pg_attribute AS a ON a.attrelid = r.oid AND a.attnum = d.adnum
  UNION ALL
  SELECT 'pg_constraint'::regclass, k.oid, 0, ARRAY['constraint', r.name, k.conname::text]
  FROM relation AS r JOIN pg_constraint AS k ON k.conrelid = r.oid
  UNION ALL
  SELECT 'pg_constraint'::regclass, k.oid, 0, type.key FROM type JOIN pg_constraint AS k ON k.contypid = type.oid
  UNION ALL
  SELECT 'pg_class'::regclass, i.indexrelid, 0,
         CASE WHEN k.oid IS NULL THEN ARRAY['index', c.relname::text] ELSE ARRAY['constraint', r.name, k.conname::text] END
  FROM relation AS r JOIN pg_index AS i ON i.indrelid = r.oid JOIN pg_class AS c ON c.oid = i.indexrelid
  LEFT JOIN pg_constraint AS k ON k.conindid = c.oid AND k.contype IN ('p', 'u', 'x')
  UNION ALL
  SELECT 'pg_rewrite'::regclass, w.oid, 0, ARRAY[r.thing, r.name]
  FROM relation AS r JOIN pg_rewrite AS w ON w.ev_class = r.oid AND w.rulename = '_RETURN'
  UNION ALL
  SELECT 'pg_trigger'::regclass, t.oid, 0, ARRAY['trigger', r.name, t.tgname::text]
  FROM relation AS r JOIN pg_trigger AS t ON t.tgrelid = r.oid AND NOT t.tgisinternal
  UNION ALL
  SELECT 'pg_policy'::regclass, p.oid, 0, ARRAY['policy', r.name, p.polname::text]
  FROM relation AS r JOIN pg_policy AS p ON p.polrelid = r.oid
  UNION ALL
  SELECT 'pg_type'::regclass, oid, 0, key FROM type
  UNION ALL
  SELECT 'pg_type'::regclass, a.oid, 0, type.key FROM type JOIN pg_type AS a ON a.typelem = type.oid
                                           AND a.typcategory = 'A' AND a.typtype = 'b'
  UNION ALL
  SELECT 'pg_type'::regclass, g.rngmultitypid, 0, type.key FROM type JOIN pg_range AS g ON g.rngtypid = type.oid
  UNION ALL
  SELECT 'pg_class'::regclass, c.oid, part, ARRAY['type', c.relname::text]
  FROM pg_class AS c, generate_series(0, c.relnatts) AS part
  WHERE c.relnamespace = (SELECT oid FROM home) AND c.relkind = 'c'
  UNION ALL
  SELECT 'pg_proc'::regclass, p.oid, 0, ARRAY['routine', p.proname || '(' ||
         array_to_string(ARRAY(SELECT format_type(type, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY AS a (type, n)
                               ORDER BY n), ', ') || ')']
  FROM pg_proc AS p WHERE p.pronamespace = (SELECT oid FROM home)
  UNION ALL
  SELECT 'pg_class'::regclass, c.oid, 0,
         CASE WHEN d.refobjid IS NULL THEN ARRAY['sequence', c.relname::text]
         ELSE ARRAY['column', r.name, (SELECT attname::text FROM pg_attribute
                                       WHERE attrelid = d.refobjid AND attnum = d.refobjsubid)] END
  FROM pg_class AS c
  LEFT JOIN pg_depend AS d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'i'
                           AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0
  LEFT JOIN relation AS r ON r.oid = d.refobjid
  WHERE c.relnamespace = (SELECT oid FROM home) AND c.relkind = 'S'
)
SELECT DISTINCT thing.key AS thing, needed.key AS needed
FROM pg_depend AS d
JOIN address AS thing ON thing.class = d.classid AND thing.id = d.objid AND thing.part = d.objsubid
JOIN address AS needed ON needed.class = d.refclassid AND needed.id = d.refobjid AND needed.part = d.refobjsubid
-- That a sequence belongs to a column is a thing of its own.
WHERE thing.key <> needed.key AND NOT (thing.key[1] = 'sequence' AND needed.key[1] IN ('column', 'table'))

-- name: unread
-- What there is in the schema, or in the whole database, that the catalog does not read.
WITH home (oid) AS (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s),
own (class, oid, kind, name, definition) AS (
  SELECT 'pg_statistic_ext'::regclass, oid, 'statistics', stxname::text, pg_get_statisticsobjdef(oid)
  FROM pg_statistic_ext WHERE stxnamespace = (SELECT oid FROM home)
  UNION ALL
  SELECT 'pg_rewrite'::regclass, r.oid, 'rule', r.rulename || ' on ' || c.relname, pg_get_ruledef(r.oid, true)
  FROM pg_rewrite AS r JOIN pg_class AS c ON c.oid = r.ev_class
  WHERE c.relnamespace = (SELECT oid FROM home) AND r.rulename <> '_RETURN'
  UNION ALL
  SELECT 'pg_class'::regclass, oid, 'foreign table', relname::text, ''
  FROM pg_class WHERE relnamespace = (SELECT oid FROM home) AND relkind = 'f'
  UNION ALL
  SELECT 'pg_class'::regclass, c.oid, 'replica identity', c.relname::text, concat_ws(' ', c.relreplident,
           (SELECT i.indexrelid::regclass::text FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisreplident))
  FROM pg_class AS c
  WHERE c.relnamespace = (SELECT oid FROM home) AND c.relkind IN ('r', 'p') AND c.relreplident <> 'd'
  UNION ALL
  SELECT 'pg_operator'::regclass, oid, 'operator', oid::regoperator::text, oprcode::text
  FROM pg_operator WHERE oprnamespace = (SELECT oid FROM home)
  UNION ALL
  SELECT 'pg_collation'::regclass, oid, 'collation', collname::text, collcollate
  FROM pg_collation WHERE collnamespace = (SELECT oid FROM home)
  UNION ALL
  SELECT 'pg_opclass'::regclass, oid, 'operator class', opcname::text, ''
  FROM pg_opclass WHERE opcnamespace = (SELECT oid FROM home)
  UNION ALL
  SELECT 'pg_ts_config'::regclass, oid, 'text search configuration', cfgname::text, ''
  FROM pg_ts_config WHERE cfgnamespace = (SELECT oid FROM home)
  UNION ALL
  SELECT 'pg_ts_dict'::regclass, oid, 'text search dictionary', dictname::text, coalesce(dictinitoption, '')
  FROM pg_ts_dict WHERE dictnamespace = (SELECT oid FROM home)
  UNION ALL
  SELECT 'pg_type'::regclass, oid, 'base type', typname::text, ''
  FROM pg_type WHERE typnamespace = (SELECT oid FROM home) AND typtype = 'b' AND typcategory <> 'A'
  UNION ALL
  SELECT 'pg_event_trigger'::regclass, oid, 'event trigger', evtname::text, evtevent || ' ' || evtfoid::regproc
  FROM pg_event_trigger
  UNION ALL
  SELECT 'pg_publication'::regclass, p.oid, 'publication', p.pubname::text, concat_ws(' ', p.puballtables, (
           SELECT string_agg(r.prrelid::regclass::text, ', ' ORDER BY r.prrelid::regclass::text)
           FROM pg_publication_rel AS r WHERE r.prpubid = p.oid))
  FROM pg_publication AS p
  UNION ALL
  SELECT 'pg_foreign_server'::regclass, oid, 'foreign server', srvname::text, '' FROM pg_foreign_server
  UNION ALL
  SELECT 'pg_default_acl'::regclass, oid, 'default privileges',
         concat_ws(' ', 'of', pg_get_userbyid(defaclrole), 'on', defaclobjtype), defaclacl::text
  FROM pg_default_acl WHERE defaclnamespace IN (0, (SELECT oid FROM home))
)
SELECT kind, name, definition FROM own
WHERE NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = own.class AND d.objid = own.oid AND d.deptype = 'e')
ORDER BY kind, name COLLATE "C"

-- name: other_schemas
SELECT n.nspname::text AS name FROM pg_namespace AS n
WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'stackctl', %(schema)s)
  AND NOT EXISTS (SELECT FROM pg_depend AS d
                  WHERE d.classid = 'pg_namespace'::regclass AND d.objid = n.oid AND d.deptype = 'e')
ORDER BY n.nspname COLLATE "C"
