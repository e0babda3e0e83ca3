-- Which servers this database has lived on. After a fail-over or a restore, copies may have seen ids and rows that the
-- database in its new place never had.

-- One row for each place, written before stackctl gives ids there. `last_sequence_id` is the highest id that rows
-- carried at that moment: a copy fed in an earlier place, and further than that, saw what was lost.
CREATE TABLE IF NOT EXISTS stackctl.source_history (
  id bigint PRIMARY KEY, -- counted without a sequence, which logical replication would not take along
  identity text NOT NULL,
  last_sequence_id bigint NOT NULL,
  noticed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The place: the cluster, its time line (a promotion begins a new one), and the database in it. Null where the server
-- does not tell, as some managed ones don't.
CREATE OR REPLACE FUNCTION stackctl.source_identity() RETURNS text LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN concat_ws('/',
    (SELECT system_identifier FROM pg_control_system()),
    CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint())
         ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer END,
    (SELECT oid FROM pg_database WHERE datname = current_database()));
EXCEPTION
  WHEN insufficient_privilege OR feature_not_supported OR undefined_function OR object_not_in_prerequisite_state THEN
    RETURN NULL;
END
$$;
