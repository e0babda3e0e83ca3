-- What stackctl keeps in an external PostgreSQL besides the target tables.

-- name: lock_creation
SELECT pg_advisory_xact_lock(hashtextextended('stackctl.target', 0))

-- name: read_facts
-- Whether it looks like the operated database, in whichever schema: the backend's tables have names that no copy has;
-- and which of our own tables are there.
SELECT EXISTS (
         SELECT FROM pg_class AS u JOIN pg_class AS q USING (relnamespace)
         WHERE u.relname = 'ProjectUser' AND q.relname = 'OutgoingRequest' AND u.relkind IN ('r', 'p')
       ),
       to_regclass('_stack_sync_metadata') IS NOT NULL,
       to_regclass('_stack_sync_owner') IS NOT NULL,
       to_regclass('_stack_sync_place') IS NOT NULL,
       to_regclass('_stack_sync_mapping') IS NOT NULL

-- name: create_metadata
CREATE TABLE IF NOT EXISTS _stack_sync_metadata (
    mapping_name text PRIMARY KEY,
    last_synced_sequence_id bigint NOT NULL DEFAULT -1,
    updated_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')
)

-- name: create_owner
CREATE TABLE IF NOT EXISTS _stack_sync_owner (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    tenancy_id uuid NOT NULL
)

-- name: create_places
-- Where the operated database lived when it fed the copies.
CREATE TABLE IF NOT EXISTS _stack_sync_place (mapping_name text PRIMARY KEY, identity text NOT NULL)

-- name: list_places
SELECT mapping_name, identity FROM _stack_sync_place

-- name: record_place
INSERT INTO _stack_sync_place (mapping_name, identity) VALUES (%(mapping)s, %(identity)s)
ON CONFLICT (mapping_name) DO UPDATE SET identity = EXCLUDED.identity

-- name: create_records
CREATE TABLE IF NOT EXISTS _stack_sync_mapping (
    mapping_name text PRIMARY KEY,
    fingerprint text NOT NULL,
    definition text NOT NULL,
    resend_after bigint,
    resend_up_to bigint
)

-- name: read_record
SELECT fingerprint, definition, resend_after, resend_up_to FROM _stack_sync_mapping WHERE mapping_name = %(mapping)s

-- name: list_records
SELECT mapping_name, fingerprint, definition, resend_after, resend_up_to FROM _stack_sync_mapping

-- name: write_record
INSERT INTO _stack_sync_mapping (mapping_name, fingerprint, definition, resend_after, resend_up_to)
VALUES (%(mapping)s, %(fingerprint)s, %(definition)s, %(resend_after)s, %(resend_up_to)s)
ON CONFLICT (mapping_name) DO UPDATE
SET fingerprint = EXCLUDED.fingerprint, definition = EXCLUDED.definition, resend_after = EXCLUDED.resend_after,
    resend_up_to = EXCLUDED.resend_up_to

-- name: hurry
-- Whoever waits for a table's own lock holds up everybody who comes after: not for long.
SET LOCAL lock_timeout = '2s'

-- name: claim_owner
INSERT INTO _stack_sync_owner (tenancy_id) VALUES (%(tenancy)s) ON CONFLICT DO NOTHING

-- name: read_owner
SELECT tenancy_id FROM _stack_sync_owner

-- name: read_columns
-- What fills a column by itself: a default, its own or its domain's; an expression; an identity.
SELECT a.attname, format_type(a.atttypid, a.atttypmod),
       (a.attnotnull OR t.typnotnull) AND NOT a.atthasdef AND t.typdefault IS NULL
       AND a.attgenerated = '' AND a.attidentity = ''
FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
WHERE a.attrelid = to_regclass(quote_ident(%(table)s)) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum

-- name: list_readable_tables
SELECT name FROM unnest(%(tables)s::text[]) AS named (name)
WHERE has_table_privilege(to_regclass(quote_ident(name)), 'SELECT')

-- name: has_unique_index
-- What it merely includes is no part of its key; and one with an expression says nothing of the plain columns.
SELECT EXISTS (
    SELECT 1 FROM pg_index AS i
    WHERE i.indrelid = to_regclass(quote_ident(%(table)s)) AND i.indisunique AND i.indisvalid AND i.indimmediate
      AND i.indpred IS NULL AND i.indexprs IS NULL
      AND (SELECT array_agg(a.attname::text ORDER BY a.attname) FROM pg_attribute AS a
           WHERE a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])) = %(key)s)

-- name: add_cursor
INSERT INTO _stack_sync_metadata (mapping_name, last_synced_sequence_id, updated_at)
VALUES (%(mapping)s, -1, now() AT TIME ZONE 'UTC') ON CONFLICT DO NOTHING

-- name: forget_cursor
DELETE FROM _stack_sync_metadata WHERE mapping_name = %(mapping)s

-- name: notice_lost_client
SET client_connection_check_interval = '2s'

-- name: read_cursor_version
SELECT xmin::text FROM _stack_sync_metadata WHERE mapping_name = %(mapping)s

-- name: lock_cursor
SELECT last_synced_sequence_id FROM _stack_sync_metadata WHERE mapping_name = %(mapping)s FOR UPDATE

-- name: may_lose_rows
-- Whether a COPY into the table may put rows elsewhere, or nowhere: by partitions, policies, rules, or triggers for each
-- row before the insert.
SELECT c.relkind <> 'r' OR c.relrowsecurity OR c.relhasrules
    OR EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgtype & 7 = 7)
FROM pg_class AS c WHERE c.oid = to_regclass(quote_ident(%(table)s))

-- name: find_plain_key
-- The table's primary key, if nobody has given it another part: what replication or CLUSTER goes by would be forgotten.
SELECT c.conname FROM pg_constraint AS c JOIN pg_index AS i ON i.indexrelid = c.conindid
WHERE c.conrelid = to_regclass(quote_ident(%(table)s)) AND c.contype = 'p'
  AND NOT i.indisreplident AND NOT i.indisclustered

-- name: list_cursors
SELECT mapping_name, last_synced_sequence_id, updated_at FROM _stack_sync_metadata

-- name: advance_cursor
UPDATE _stack_sync_metadata
SET last_synced_sequence_id = %(cursor)s, updated_at = clock_timestamp() AT TIME ZONE 'UTC'
WHERE mapping_name = %(mapping)s
