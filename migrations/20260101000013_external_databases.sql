-- The external databases that a poller has queued since they were configured, so that those that are new are queued at
-- once, whoever finds them. `fingerprint`: of where each one is and which mappings it takes.
CREATE TABLE IF NOT EXISTS stackctl.known_database (
  tenancy_id uuid NOT NULL,
  database_id text NOT NULL,
  fingerprint text NOT NULL,
  PRIMARY KEY (tenancy_id, database_id)
);

-- What is switched off within the poller: a tenancy, an external database, a mapping, or where these meet. A null stands
-- for all of them.
CREATE TABLE IF NOT EXISTS stackctl.pause (
  tenancy_id uuid,
  database_id text,
  mapping text,
  reason text,
  paused_by text NOT NULL,
  paused_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  CHECK (num_nonnulls(tenancy_id, database_id, mapping) > 0)
);
CREATE UNIQUE INDEX IF NOT EXISTS pause_key ON stackctl.pause (
  (coalesce(tenancy_id::text, '')), (coalesce(database_id, '')), (coalesce(mapping, ''))
);
