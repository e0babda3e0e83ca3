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

-- name: references
-- Of each column of a dependency: whether what it was before a change is recorded, and by what it could be. Of the
-- primary key it always is. null: nothing in this database records such changes.
SELECT wanted.name,
       a.attnum = ANY (i.indkey) OR EXISTS (
         SELECT FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
         WHERE t.tgrelid = c.oid AND t.tgenabled IN ('O', 'A') AND t.tgtype & 17 = 17 AND p.prosrc LIKE '%%"DeletedRow"%%'
           AND (t.tgqual IS NULL
                OR strpos(pg_catalog.pg_get_triggerdef(t.oid), 'old.' || quote_ident(wanted.name) || ' ') > 0)),
       CASE WHEN to_regproc('log_moved_row') IS NOT NULL THEN
         format('CREATE TRIGGER %%I AFTER UPDATE ON %%I FOR EACH ROW WHEN (OLD.%%3$I IS DISTINCT FROM NEW.%%3$I) '
                'EXECUTE FUNCTION log_moved_row(%%4$s)', 'log_moved_' || wanted.name, c.relname, wanted.name,
                (SELECT string_agg(quote_literal(k.attname), ', ' ORDER BY k.attnum) FROM pg_catalog.pg_attribute AS k
                 WHERE k.attrelid = c.oid AND (k.attnum = ANY (i.indkey) OR k.attname = 'tenancyId'))) END
FROM unnest(%(columns)s::text[]) AS wanted (name)
JOIN pg_catalog.pg_class AS c ON c.relname = %(table)s AND c.relkind = 'r' AND pg_catalog.pg_table_is_visible(c.oid)
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = wanted.name
JOIN pg_catalog.pg_index AS i ON i.indrelid = c.oid AND i.indisprimary;
