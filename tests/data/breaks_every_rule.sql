-- Breaks every rule of `stackctl migrate lint` that needs no database. A comment behind a statement names the rules
-- that find it on that line; the tests hold lint to exactly these.

CREATE INDEX team_slug_idx ON "Team" (slug);                                       -- finds: index-not-concurrent
DROP INDEX old_idx, public."Older_idx";                                            -- finds: drop-index-not-concurrent, drop-index-not-concurrent, drop-index
REINDEX TABLE "Team";                                                              -- finds: reindex-not-concurrent
CREATE INDEX CONCURRENTLY team_name_idx ON "Team" (name);                          -- finds: cannot-run-in-transaction
CLUSTER "Team" USING team_name_idx;                                                -- finds: vacuum-full-or-cluster
ALTER TABLE "Team" SET UNLOGGED;                                                   -- finds: table-rewrite
ALTER TABLE "Team" ADD COLUMN double int GENERATED ALWAYS AS (size * 2) STORED;    -- finds: generated-column-added
ALTER TABLE "Team" ADD COLUMN token uuid NOT NULL DEFAULT gen_random_uuid();       -- finds: volatile-default
ALTER TABLE "Team" ADD COLUMN code text DEFAULT app.new_code();                    -- finds: default-not-known
ALTER TABLE "Team" ADD COLUMN number bigserial;                                    -- finds: serial-added
ALTER TABLE "Team" ALTER COLUMN size TYPE bigint;                                  -- finds: column-type-change
REFRESH MATERIALIZED VIEW team_sizes;                                              -- finds: refresh-not-concurrent
ALTER TABLE events DETACH PARTITION events_2024;                                   -- finds: detach-not-concurrent, rows-leave-parent
ALTER TABLE events ATTACH PARTITION events_2025 FOR VALUES IN (2025);              -- finds: attach-reads-partition
LOCK TABLE "Team" IN ACCESS EXCLUSIVE MODE;                                        -- finds: lock-table
TRUNCATE "Team" CASCADE;                                                           -- finds: truncate-cascade
TRUNCATE sessions, "Team";                                                         -- finds: truncate, truncate
UPDATE "Team" SET slug = lower(name);                                              -- finds: whole-table-at-once
ALTER TABLE "Team" ADD CHECK (size > 0), ADD CHECK (size < 99) NOT VALID;          -- finds: constraint-not-valid-missing, check-added
ALTER TABLE "Team" ADD FOREIGN KEY (owner) REFERENCES "User" (id);                 -- finds: foreign-key-not-valid-missing, foreign-key-added, foreign-key-without-index
ALTER TABLE "Team" ADD CONSTRAINT named CHECK (name <> '') NOT VALID;
ALTER TABLE "Team" VALIDATE CONSTRAINT named;                                      -- finds: validated-in-same-transaction
ALTER TABLE "Team" ADD CONSTRAINT team_slug_key UNIQUE (slug);                     -- finds: unique-not-using-index, unique-added
ALTER TABLE "Team" ADD PRIMARY KEY (id);                                           -- finds: primary-key-not-using-index, unique-added
ALTER TABLE events ADD PRIMARY KEY USING INDEX events_id;                          -- finds: primary-key-nullable
ALTER TABLE "Team" ADD EXCLUDE USING gist (during WITH &&);                        -- finds: exclusion-added
ALTER TABLE "Team" ALTER slug SET NOT NULL;                                        -- finds: set-not-null
ALTER TABLE "Team" ADD COLUMN region text NOT NULL;                                -- finds: not-null-without-default
ALTER TABLE "Team" RENAME name TO title;                                           -- finds: rename-column
ALTER TABLE "Team" RENAME TO "Group";                                              -- finds: rename-table
ALTER TYPE mood RENAME TO feeling;                                                 -- finds: rename-type
ALTER TYPE mood RENAME VALUE 'sad' TO 'blue';                                      -- finds: rename-enum-value
ALTER FUNCTION greet(text) RENAME TO welcome;                                      -- finds: rename-function
ALTER TABLE "Team" DROP COLUMN name, DROP logo;                                    -- finds: drop-column, drop-column
ALTER TABLE "Team" ALTER size DROP DEFAULT;                                        -- finds: drop-default
ALTER TABLE "Team" DROP CONSTRAINT team_owner_fkey;                                -- finds: drop-constraint
DROP TABLE "Session", public.sessions;                                             -- finds: drop-table, drop-table
DROP VIEW team_list;                                                               -- finds: drop-view
DROP FUNCTION greet(text);                                                         -- finds: drop-function
DROP TYPE mood;                                                                    -- finds: drop-type
DROP SEQUENCE team_number;                                                         -- finds: drop-sequence
DROP SCHEMA legacy CASCADE;                                                        -- finds: drop-schema
DROP EXTENSION citext;                                                             -- finds: drop-extension
ALTER SEQUENCE ticket RENAME TO coupon;                                            -- finds: rename-sequence
ALTER SCHEMA legacy RENAME TO old;                                                 -- finds: rename-schema
ALTER TABLE plan RENAME TO tariff;                                                 -- finds: relation-kind
CREATE VIEW plan AS SELECT * FROM tariff;
ALTER TABLE "Team" RENAME CONSTRAINT team_size TO size_of_team;                    -- finds: constraint-renamed
CREATE OR REPLACE VIEW team_names AS SELECT name FROM "Team";                      -- finds: view-changed
DROP FUNCTION area(int);                                                           -- finds: function-changed
CREATE FUNCTION area(side bigint) RETURNS bigint LANGUAGE sql AS 'SELECT side * side';
CREATE FUNCTION secret() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';  -- finds: security-definer-path
ALTER TYPE address ADD ATTRIBUTE street text;                                      -- finds: type-changed
ALTER SEQUENCE ticket INCREMENT BY 10;                                             -- finds: sequence-changed
CREATE DOMAIN percent AS int CHECK (VALUE BETWEEN 0 AND 100);
ALTER TABLE "Team" ADD COLUMN discount percent;                                    -- finds: domain-column-added
ALTER TABLE events ALTER kind SET DEFAULT 3;                                       -- finds: default-changed
ALTER TABLE "Team" ALTER slug DROP NOT NULL;                                       -- finds: drop-not-null
ALTER TABLE "Team" ALTER id ADD GENERATED ALWAYS AS IDENTITY;                      -- finds: column-generated
ALTER TABLE events ALTER nr DROP IDENTITY;                                         -- finds: drop-generated
MERGE INTO "Team" AS t USING extra AS e ON e.id = t.id WHEN MATCHED THEN DELETE;   -- finds: rows-written-under-lock
CREATE TABLE badge (team bigint PRIMARY KEY REFERENCES "Team" (id));               -- finds: foreign-key-onto
CREATE TABLE events_2026 PARTITION OF events FOR VALUES IN (2026);                 -- finds: partition-locks-parent
CREATE TABLE seats (id bigint) PARTITION BY LIST (id);
CREATE INDEX CONCURRENTLY seats_id ON seats (id);                                  -- finds: cannot-run-in-transaction, concurrently-on-partitioned
ALTER TABLE "Team" ENABLE ROW LEVEL SECURITY;                                      -- finds: row-security-enabled
ALTER TABLE events DISABLE ROW LEVEL SECURITY;                                     -- finds: row-security-disabled
DROP POLICY own_events ON events;                                                  -- finds: policy-changed
CREATE TRIGGER stamp BEFORE UPDATE ON events FOR EACH ROW EXECUTE FUNCTION f();    -- finds: trigger-added
DROP TRIGGER stamp ON "Team";                                                      -- finds: trigger-dropped
ALTER TABLE "Team" DISABLE TRIGGER ALL;                                            -- finds: trigger-changed
REVOKE SELECT ON "Team" FROM reader;                                               -- finds: grant-revoked
DROP OWNED BY reader;                                                              -- finds: drop-owned
DROP ROLE reader;                                                                  -- finds: drop-role
ALTER ROLE writer NOLOGIN;                                                         -- finds: options-changed
ALTER TABLE events REPLICA IDENTITY NOTHING;                                       -- finds: replica-identity-changed
CREATE SCHEMA a_name_of_more_than_sixty_three_bytes_which_the_server_cuts_off_there;  -- finds: identifier-too-long
DROP DATABASE archive;                                                             -- finds: cannot-run-in-transaction, drop-database
ALTER TYPE mood ADD VALUE 'proud';
UPDATE "Team" SET mood = 'proud' WHERE id = 1;                                     -- finds: enum-value-used
DO $$
BEGIN
  EXECUTE format('ALTER TABLE %I ADD COLUMN x int', 'Team');                       -- finds: dynamic-sql
END $$;
CREATE TABLE advice (
  id serial PRIMARY KEY,                                                           -- finds: int-key
  country char(2),                                                                 -- finds: char-type
  seen_at timestamp,                                                               -- finds: timestamp-without-time-zone
  settings json                                                                    -- finds: json-type
);
ALTER TABLE "Team" FROBNICATE;                                                     -- finds: not-understood
COMMIT;                                                                            -- finds: transaction-control
COPY "Team" FROM STDIN;                                                            -- finds: unreadable-file
-- stackctl:split
-- stackctl:repeat
SELECT count(*) > 0 AS should_repeat FROM "Team";                                  -- finds: repeat-answer
-- stackctl:split
-- stackctl:allow drop-tabel nobody reads it                                       -- finds: allow-unknown-rule
-- stackctl:allow drop-table the next statement drops none                         -- finds: allow-unused
SELECT 1;
-- stackctl:allow drop-table
DROP TABLE nobody_says_why;
