-- Rows that one external database refuses, each by its key. The others go on without them; they are tried again.

CREATE TABLE IF NOT EXISTS stackctl.refused_row (
  tenancy_id uuid NOT NULL,
  database_id text NOT NULL,
  mapping text NOT NULL,
  key jsonb NOT NULL,
  sequence_id bigint NOT NULL,
  error text NOT NULL,
  refused_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  tried_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenancy_id, database_id, mapping, key)
);
