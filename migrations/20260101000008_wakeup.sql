-- Notifications for loops with `sync.wakeup: notify`: a statement that leaves work says so to whoever listens.
--
-- They are sent only while somebody listens: a NOTIFY makes the commits of all transactions that send one wait for each
-- other, and a transaction that has sent one can't be prepared for a two-phase commit. Nobody listens unless the
-- configuration asks for it; a listener that has gone away is forgotten within a minute.
--
-- stackctl:change-capture

CREATE TABLE IF NOT EXISTS stackctl.listening (
  singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  listening_until timestamptz NOT NULL
);

-- With the owner's rights, because the application need not know of schema stackctl. now() is the beginning of the
-- transaction: in doubt it notifies.
CREATE OR REPLACE FUNCTION stackctl.wake_listeners() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF EXISTS (SELECT FROM stackctl.listening WHERE listening_until > now()) THEN
    PERFORM pg_notify('stackctl', '');
  END IF;
  RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION stackctl.wake_listeners() FROM PUBLIC;

-- For each statement, not for each row; not for the sequencer's own stamps. A delete writes to "DeletedRow".
--
-- stackctl:allow dynamic-sql it creates triggers, whose definitions stand in the query
DO $migration$
DECLARE
  noticed record;
BEGIN
  FOR noticed IN
    WITH wanted (name, definition) AS (
      SELECT name,
             format('CREATE TRIGGER wake_listeners AFTER INSERT OR UPDATE ON %I FOR EACH STATEMENT '
                    'WHEN (current_setting(''stackctl.stamping'', true) IS DISTINCT FROM ''on'') '
                    'EXECUTE FUNCTION stackctl.wake_listeners()', name)
      FROM unnest(ARRAY[
        'ProjectUser', 'ContactChannel', 'Team', 'TeamMember', 'TeamMemberDirectPermission',
        'ProjectUserDirectPermission', 'UserNotificationPreference', 'ProjectUserRefreshToken',
        'ProjectUserOAuthAccount', 'EmailOutbox', 'VerificationCode'
      ]) AS name
      UNION ALL
      SELECT name,
             format('CREATE TRIGGER wake_listeners AFTER INSERT ON %I FOR EACH STATEMENT '
                    'EXECUTE FUNCTION stackctl.wake_listeners()', name)
      FROM unnest(ARRAY['DeletedRow', 'OutgoingRequest']) AS name
    )
    SELECT definition FROM wanted AS w
    WHERE NOT EXISTS (
      SELECT FROM pg_trigger AS t
      WHERE t.tgrelid = format('%I', w.name)::regclass
        AND t.tgfoid = 'stackctl.wake_listeners()'::regprocedure
    )
  LOOP
    EXECUTE noticed.definition;
  END LOOP;
END $migration$;
