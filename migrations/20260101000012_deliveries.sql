-- Failures are kept for each mapping; and what is to be sent stands in records of its own, one for each database.

-- '': the database as a whole.
ALTER TABLE stackctl.delivery ADD COLUMN IF NOT EXISTS mapping text NOT NULL DEFAULT '';

-- stackctl:allow primary-key-not-using-index it has a row for each database that fails at present
DO $migration$
BEGIN
  IF NOT EXISTS (
    SELECT FROM pg_constraint
    WHERE conrelid = 'stackctl.delivery'::regclass AND contype = 'p' AND cardinality(conkey) = 3
  ) THEN
    ALTER TABLE stackctl.delivery DROP CONSTRAINT IF EXISTS delivery_pkey,
      ADD CONSTRAINT delivery_pkey PRIMARY KEY (tenancy_id, database_id, mapping);
  END IF;
END $migration$;

-- An external database that is to be brought up to date. Whoever works on it holds a lease, renewed meanwhile.
CREATE TABLE IF NOT EXISTS stackctl.pending_delivery (
  tenancy_id uuid NOT NULL,
  database_id text NOT NULL,
  queued_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  leased_by uuid,
  leased_at timestamptz,
  -- there are further changes since the lease
  again boolean NOT NULL DEFAULT false,
  -- it has had a turn that was not enough, and waits among its like
  slow boolean NOT NULL DEFAULT false,
  -- mappings whose next attempt is due ('': the whole database)
  retry text[] NOT NULL DEFAULT '{}',
  PRIMARY KEY (tenancy_id, database_id)
);
