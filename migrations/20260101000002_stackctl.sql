-- What stackctl alone keeps, beside the migration history.

CREATE SCHEMA IF NOT EXISTS stackctl;

-- One row a stamping transaction: the highest sequence id it gave, and when. It turns a cursor into a lag in time.
CREATE TABLE IF NOT EXISTS stackctl.stamp_log (
  up_to_sequence_id bigint PRIMARY KEY,
  stamped_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- One row for each database that fails at present. Without a next attempt it is a dead letter: the next change of its
-- tenancy, the sweep or a person wakes it.
CREATE TABLE IF NOT EXISTS stackctl.delivery (
  tenancy_id uuid NOT NULL,
  database_id text NOT NULL,
  attempts integer NOT NULL,
  failing_since timestamptz NOT NULL,
  last_attempt_at timestamptz NOT NULL,
  last_error text NOT NULL,
  last_error_code text NOT NULL,
  next_attempt_at timestamptz,
  PRIMARY KEY (tenancy_id, database_id)
);
CREATE INDEX IF NOT EXISTS delivery_next_attempt_at_idx ON stackctl.delivery (next_attempt_at);

CREATE TABLE IF NOT EXISTS stackctl.sweep (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  last_swept_at timestamptz NOT NULL
);
