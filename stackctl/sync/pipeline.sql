-- What must hold before anything is stamped or sent.

-- name: is_migrated
SELECT to_regclass('"OutgoingRequest"') IS NOT NULL AND to_regclass('"DeletedRow"') IS NOT NULL
   AND to_regclass('stackctl.pending_delivery') IS NOT NULL AND to_regclass('global_seq_id') IS NOT NULL
   AND to_regclass('stackctl.source_history') IS NOT NULL,
   -- Set by the migration that changes what stackctl keeps so that earlier versions would read it wrongly.
   regexp_match(obj_description(to_regnamespace('stackctl'), 'pg_namespace'), '^format (\d+), stackctl (\S+)$')

-- name: list_tables_with_hidden_rows
-- Tables whose policies apply to this role, whether they hide a row today or not.
SELECT relname FROM pg_class
WHERE relrowsecurity AND pg_table_is_visible(oid) AND row_security_active(oid) ORDER BY relname
