-- How far each backfill has come, for one that was interrupted to go on there. A finished one leaves no row.

CREATE TABLE IF NOT EXISTS stackctl.backfill (
  tenancy_id uuid NOT NULL,
  database_id text NOT NULL,
  mapping text NOT NULL,
  -- Rows with sequence ids up to the position were sent; the last one to send was known at the start.
  position bigint NOT NULL,
  up_to_sequence_id bigint NOT NULL,
  rows_sent bigint NOT NULL,
  started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenancy_id, database_id, mapping)
);
