-- What `doctor` asks the operated database.

-- name: server
SELECT current_setting('server_version_num')::int, current_setting('server_version'), pg_is_in_recovery(),
       extract(epoch FROM clock_timestamp())::float8, current_setting('transaction_read_only') = 'on'

-- name: has_tables
SELECT to_regclass('"ProjectUser"') IS NOT NULL AND to_regclass('"OutgoingRequest"') IS NOT NULL

-- name: sequence
SELECT seqincrement, seqcache, seqtypid = 'bigint'::regtype, seqcycle FROM pg_sequence
WHERE seqrelid = to_regclass('global_seq_id')

-- name: missing_rights
-- Tables that a stage writes, and the right that this role lacks on each.
SELECT name, privilege
FROM unnest(%(tables)s::text[]) AS name,
     unnest(ARRAY['SELECT', 'UPDATE']) AS privilege
WHERE to_regclass(quote_ident(name)) IS NOT NULL
  AND NOT has_table_privilege(to_regclass(quote_ident(name)), privilege)
UNION ALL
SELECT 'OutgoingRequest', privilege
FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege
WHERE to_regclass('"OutgoingRequest"') IS NOT NULL AND NOT has_table_privilege('"OutgoingRequest"', privilege)
ORDER BY 1, 2

-- name: list_silent_triggers
-- Triggers of change capture, table by table, that are switched off or fire for replicas only, or else do not fire for
-- those; and what fixes it.
SELECT t.tgenabled IN ('D', 'R') AS off,
       format('%%s (%%s)', quote_ident(c.relname), string_agg(t.tgname, ', ' ORDER BY t.tgname)),
       format('ALTER TABLE %%I %%s', c.relname,
              string_agg(format('ENABLE ALWAYS TRIGGER %%I', t.tgname), ', ' ORDER BY t.tgname))
FROM unnest(%(tables)s::text[] || '{Tenancy,OutgoingRequest}') AS name
JOIN pg_class AS c ON c.oid = to_regclass(quote_ident(name))
JOIN pg_trigger AS t ON t.tgrelid = c.oid AND t.tgenabled <> 'A' AND NOT t.tgisinternal
JOIN pg_proc AS p ON p.oid = t.tgfoid
  AND (p.proname IN ('reset_sequence_id_on_update', 'wake_listeners', 'mark_gained_invitations')
       OR p.proname LIKE 'log\_%%')
GROUP BY 1, c.relname ORDER BY c.relname

-- name: uncaptured
-- Tables without a trigger that marks updates (16), or without one that records deletes (8).
SELECT name,
       NOT EXISTS (SELECT 1 FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid
                   WHERE t.tgrelid = c.oid AND t.tgenabled IN ('O', 'A') AND t.tgtype & 16 <> 0
                     AND p.proname = 'reset_sequence_id_on_update'),
       NOT EXISTS (SELECT 1 FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid
                   WHERE t.tgrelid = c.oid AND t.tgenabled IN ('O', 'A') AND t.tgtype & 8 <> 0
                     AND p.proname LIKE 'log\_deleted\_%%')
FROM unnest(%(tables)s::text[]) AS name
JOIN pg_class AS c ON c.oid = to_regclass(quote_ident(name))
ORDER BY name
