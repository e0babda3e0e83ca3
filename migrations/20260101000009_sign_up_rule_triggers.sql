-- A home for the triggers of sign-up rules: how often each rule acted, by hour and in all, and on which user.
--
-- They are counted as they are recorded, so that reading costs the same after a hundred million of them. Counting is
-- done in slots: a transaction takes the first one that no other open transaction holds, and so never waits for one,
-- whatever the application does before it commits. With nobody else at it, that is always the first. A reader adds
-- the slots up.

CREATE TABLE IF NOT EXISTS stackctl.sign_up_rule_total (
  tenancy_id uuid NOT NULL,
  rule_id text NOT NULL,
  action text NOT NULL CHECK (action IN ('allow', 'reject', 'restrict', 'log')),
  slot integer NOT NULL,
  triggers bigint NOT NULL,
  first_at timestamptz NOT NULL,
  last_at timestamptz NOT NULL,
  PRIMARY KEY (tenancy_id, rule_id, action, slot)
) WITH (fillfactor = 50);  -- room for the next version of a row on its own page, where it needs no index entry

-- Hours nobody looks at any more may be deleted: the totals stand beside them.
CREATE TABLE IF NOT EXISTS stackctl.sign_up_rule_hour (
  tenancy_id uuid NOT NULL,
  rule_id text NOT NULL,
  action text NOT NULL,
  hour timestamptz NOT NULL,
  slot integer NOT NULL,
  triggers bigint NOT NULL,
  PRIMARY KEY (tenancy_id, rule_id, action, hour, slot)
);

-- Which rule acted on a user, where the application says whom. Rows of users that are gone may be deleted.
CREATE TABLE IF NOT EXISTS stackctl.sign_up_rule_user (
  tenancy_id uuid NOT NULL,
  user_id uuid NOT NULL,
  rule_id text NOT NULL,
  action text NOT NULL,
  triggered_at timestamptz NOT NULL,
  PRIMARY KEY (tenancy_id, user_id, rule_id, action)
);

-- With the owner's rights, because the application need not know of the tables. Who may call it is for the operator to
-- say: GRANT USAGE ON SCHEMA stackctl and GRANT EXECUTE ON FUNCTION.
CREATE OR REPLACE FUNCTION stackctl.record_sign_up_rule_trigger(
  tenancy uuid, rule text, action text, user_id uuid DEFAULT NULL
) RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  free_slot integer := 0;
BEGIN
  LOOP
    WHILE NOT pg_try_advisory_xact_lock(hashtext('stackctl.sign_up_rule_trigger'), free_slot) LOOP
      free_slot := free_slot + 1;
    END LOOP;
    BEGIN
      INSERT INTO stackctl.sign_up_rule_total AS counted
        (tenancy_id, rule_id, action, slot, triggers, first_at, last_at)
      VALUES (tenancy, rule, action, free_slot, 1, now(), now())
      ON CONFLICT (tenancy_id, rule_id, action, slot) DO UPDATE
      SET triggers = counted.triggers + 1, last_at = greatest(counted.last_at, EXCLUDED.last_at);

      INSERT INTO stackctl.sign_up_rule_hour AS counted (tenancy_id, rule_id, action, hour, slot, triggers)
      VALUES (tenancy, rule, action, date_trunc('hour', now(), 'UTC'), free_slot, 1)
      ON CONFLICT (tenancy_id, rule_id, action, hour, slot) DO UPDATE SET triggers = counted.triggers + 1;

      IF user_id IS NOT NULL THEN
        INSERT INTO stackctl.sign_up_rule_user (tenancy_id, user_id, rule_id, action, triggered_at)
        VALUES (tenancy, user_id, rule, action, now())
        ON CONFLICT DO NOTHING;
      END IF;
      RETURN;
    EXCEPTION WHEN serialization_failure THEN
      -- At REPEATABLE READ and above, a slot that was used since the snapshot can't be used again. The limit is for a
      -- transaction that is past saving, and would fail in every slot.
      IF free_slot >= 1000 THEN
        RAISE;
      END IF;
      free_slot := free_slot + 1;
    END;
  END LOOP;
END
$$;
REVOKE ALL ON FUNCTION stackctl.record_sign_up_rule_trigger(uuid, text, text, uuid) FROM PUBLIC;
