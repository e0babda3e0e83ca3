-- Breaks every rule of `stackctl migrate lint` that needs no database. A comment behind a statement names the rules
-- that find it on that line; the tests hold lint to exactly these.

CREATE INDEX team_slug_idx ON "Team" (slug);                                       -- finds: index-not-concurrent
DROP INDEX old_idx, public."Older_idx";                                            -- finds: drop-index-not-concurrent, drop-index-not-concurrent
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
ALTER TABLE events DETACH PARTITION events_2024;                                   -- finds: detach-not-concurrent
ALTER TABLE events ATTACH PARTITION events_2025 FOR VALUES IN (2025);              -- finds: attach-reads-partition
LOCK TABLE "Team" IN ACCESS EXCLUSIVE MODE;                                        -- finds: lock-table
TRUNCATE "Team" CASCADE;                                                           -- finds: truncate-cascade
TRUNCATE sessions, "Team";                                                         -- finds: truncate, truncate
UPDATE "Team" SET slug = lower(name);                                              -- finds: whole-table-at-once
ALTER TABLE "Team" ADD CHECK (size > 0), ADD CHECK (size < 99) NOT VALID;          -- finds: constraint-not-valid-missing
ALTER TABLE "Team" ADD FOREIGN KEY (owner) REFERENCES "User" (id);                 -- finds: foreign-key-not-valid-missing
ALTER TABLE "Team" ADD CONSTRAINT named CHECK (name <> '') NOT VALID;
ALTER TABLE "Team" VALIDATE CONSTRAINT named;                                      -- finds: validated-in-same-transaction
ALTER TABLE "Team" ADD CONSTRAINT team_slug_key UNIQUE (slug);                     -- finds: unique-not-using-index
ALTER TABLE "Team" ADD PRIMARY KEY (id);                                           -- finds: primary-key-not-using-index
ALTER TABLE "Team" ADD EXCLUDE USING gist (during WITH &&);                        -- finds: exclusion-constraint-added
ALTER TABLE "Team" ALTER slug SET NOT NULL;                                        -- finds: set-not-null
ALTER TABLE "Team" ADD COLUMN region text NOT NULL;                                -- finds: not-null-without-default
ALTER TABLE "Team" RENAME name TO title;                                           -- finds: rename-column
ALTER TABLE "Team" RENAME TO "Group";                                              -- finds: rename-table
ALTER TYPE mood RENAME TO feeling;                                                 -- finds: rename-type
ALTER TYPE mood RENAME VALUE 'sad' TO 'blue';                                      -- finds: rename-enum-value
ALTER FUNCTION greet(text) RENAME TO welcome;                                      -- finds: rename-other
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
