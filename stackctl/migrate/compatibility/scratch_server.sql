-- name: make_admin
CREATE ROLE stackctl_admin SUPERUSER LOGIN;

-- name: disempower
-- Takes the bootstrap superuser's name for a role that may do what concerns this server alone: no files, no programs, no
-- connections to elsewhere (pg_create_subscription).
ALTER ROLE postgres RENAME TO stackctl_bootstrap;
ALTER ROLE stackctl_bootstrap NOLOGIN;
CREATE ROLE postgres LOGIN CREATEDB CREATEROLE REPLICATION BYPASSRLS;
-- Dumps comment on it. In template1, of which each database is a copy.
UPDATE pg_extension SET extowner = 'postgres'::regrole;
-- Who creates a role can act as it, as a superuser could.
ALTER ROLE postgres SET createrole_self_grant = 'set, inherit';
GRANT pg_read_all_data, pg_write_all_data, pg_monitor, pg_read_all_settings, pg_read_all_stats, pg_stat_scan_tables,
      pg_signal_backend, pg_checkpoint, pg_maintain, pg_use_reserved_connections TO postgres WITH ADMIN OPTION;
DO $$
DECLARE
  setting text;
BEGIN
  FOR setting IN
    SELECT name FROM pg_settings
    WHERE context = 'superuser'
      AND (name LIKE 'log\_%' OR name LIKE 'track\_%' OR name IN ('session_replication_role', 'deadlock_timeout'))
  LOOP
    EXECUTE format('GRANT SET ON PARAMETER %I TO postgres', setting);
  END LOOP;
END
$$;

-- name: closed_schemas
-- In which a role can't be given anything.
SELECT n.nspname FROM pg_catalog.pg_namespace AS n JOIN pg_catalog.pg_roles AS r ON r.rolname = %(role)s
WHERE n.nspname !~ '^pg_' AND pg_catalog.pg_has_role(n.nspowner, 'USAGE')
  AND NOT pg_catalog.has_schema_privilege(r.oid, n.oid, 'CREATE')

-- name: server_objects
-- What belongs to the server rather than to one database; `name` is that of the database where it concerns just one.
SELECT 'role' AS kind, rolname AS name, r::text AS state FROM pg_catalog.pg_roles AS r
UNION ALL
SELECT 'member', pg_catalog.pg_get_userbyid(roleid), m::text FROM pg_catalog.pg_auth_members AS m
UNION ALL
SELECT 'tablespace', spcname, t::text FROM pg_catalog.pg_tablespace AS t
UNION ALL
SELECT 'database', datname, concat_ws(' ', oid, datdba, datallowconn, datconnlimit, dattablespace, datacl)
FROM pg_catalog.pg_database
UNION ALL
SELECT 'setting', coalesce(datname, ''), s::text
FROM pg_catalog.pg_db_role_setting AS s LEFT JOIN pg_catalog.pg_database AS d ON d.oid = s.setdatabase
UNION ALL
SELECT 'comment', coalesce(datname, ''), c::text
FROM pg_catalog.pg_shdescription AS c
LEFT JOIN pg_catalog.pg_database AS d ON d.oid = c.objoid AND c.classoid = 'pg_catalog.pg_database'::regclass
UNION ALL
SELECT 'subscription', datname, concat_ws(' ', s.oid, subname, subenabled)
FROM pg_catalog.pg_subscription AS s JOIN pg_catalog.pg_database AS d ON d.oid = s.subdbid
UNION ALL
SELECT 'slot', coalesce(database, ''), slot_name::text FROM pg_catalog.pg_replication_slots
UNION ALL
SELECT 'parameter', parname, paracl::text FROM pg_catalog.pg_parameter_acl
