-- What the sequencer runs besides the stamping statements, which are composed per table (see stamping.py).

-- name: try_lock
-- Released by the commit, never before: see sequencer.py on order. Stamping statements pick nothing unless
-- stackctl.stamping is on; and stamps are no news to those who listen for changes.
-- The commit is durable whatever the server's default: a crash must not take back stamps that were sent already.
-- A batch is small beside its tables: it must not read one of them whole, whatever the statistics say.
SELECT set_config('stackctl.stamping', CASE WHEN taken THEN 'on' ELSE 'off' END, true) = 'on',
       stackctl.source_identity(),
       set_config('synchronous_commit', 'on', true),
       set_config('enable_seqscan', 'off', true),
       set_config('random_page_cost', '1.1', true)
FROM pg_try_advisory_xact_lock(hashtextextended('stackctl.sequencer', 0)) AS taken

-- name: limit_lock_wait
-- Shorter than any deadlock_timeout in use: it is never the application that is told of a deadlock.
SET LOCAL lock_timeout = '50ms'

-- name: log_stamps_and_limit_lock_wait
INSERT INTO stackctl.stamp_log (up_to_sequence_id)
SELECT %(up_to)s::bigint FROM set_config('lock_timeout', '50ms', true)
ON CONFLICT DO NOTHING

-- name: prune_stamp_log
-- A bounded part, by the primary key: times rise with the ids. The last one stays: it tells which ids were given, also
-- when their rows are gone.
DELETE FROM stackctl.stamp_log WHERE up_to_sequence_id <= (
    SELECT max(up_to_sequence_id)
    FROM (SELECT * FROM stackctl.stamp_log ORDER BY up_to_sequence_id LIMIT 50000) AS oldest
    WHERE stamped_at < clock_timestamp() - interval '7 days')
  AND up_to_sequence_id < (SELECT max(up_to_sequence_id) FROM stackctl.stamp_log)

-- name: empty_tombstones
UPDATE "DeletedRow" SET data = NULL
WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM "DeletedRow" WHERE data IS NOT NULL AND NOT "shouldUpdateSequenceId"
    ORDER BY "sequenceId" LIMIT %(limit)s FOR UPDATE SKIP LOCKED))

-- name: read_highest_stamp
SELECT t.id AS tenancy, ends.high
FROM "Tenancy" AS t {each}
CROSS JOIN LATERAL (SELECT max("sequenceId") AS high FROM {table} WHERE {owned} AND {filter}) AS ends
WHERE %(tenancies)s::uuid[] IS NULL OR t.id = ANY (%(tenancies)s)

-- name: find_tenancies_ahead
SELECT stamps.tenancy, max(stamps.high)
FROM ({}) AS stamps (tenancy, high),
     (SELECT s.last_value + CASE WHEN s.is_called THEN q.seqincrement ELSE 0 END AS next
      FROM global_seq_id AS s JOIN pg_sequence AS q ON q.seqrelid = 'global_seq_id'::regclass) AS given
WHERE stamps.high >= given.next
GROUP BY 1 ORDER BY 1

-- name: holds_rows_elsewhere
-- Whether a table with a primary key has partitions, or others that inherit from it.
SELECT c.relkind = 'p' OR EXISTS (SELECT FROM pg_inherits AS h WHERE h.inhparent = c.oid)
FROM pg_class AS c JOIN pg_index AS i ON i.indrelid = c.oid AND i.indisprimary
WHERE c.oid = to_regclass(quote_ident(%(table)s))

-- name: find_missing_tables
SELECT name FROM unnest(%(tables)s::text[]) AS name
WHERE NOT EXISTS (SELECT FROM pg_index WHERE indrelid = to_regclass(quote_ident(name)) AND indisprimary)
   OR (SELECT count(*) FROM pg_attribute
       WHERE attrelid = to_regclass(quote_ident(name)) AND NOT attisdropped
         AND attname IN ('sequenceId', 'shouldUpdateSequenceId')) < 2

-- name: read_column_type
SELECT format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = to_regclass(quote_ident(%(table)s)) AND attname = %(column)s AND NOT attisdropped

-- name: read_order_of_marks
-- By what the index of the marks orders the rows that wait: a partial index by tenancy, one of all rows by mark and
-- tenancy.
SELECT NOT coalesce(bool_or(i.indpred IS NOT NULL), false) AND coalesce(bool_or(i.indpred IS NULL), false)
FROM pg_index AS i
WHERE i.indrelid = to_regclass(quote_ident(%(table)s)) AND i.indisvalid
  AND (pg_get_expr(i.indpred, i.indrelid) = '"shouldUpdateSequenceId"'
       OR i.indpred IS NULL AND pg_get_indexdef(i.indexrelid, 1, true) = '"shouldUpdateSequenceId"'
          AND i.indnkeyatts > 1 AND pg_get_indexdef(i.indexrelid, 2, true) = '"tenancyId"')

-- name: read_turns_of_marks
-- By what an index of the marks orders the rows that wait, where it is by a number made of these columns.
SELECT pg_get_indexdef(i.indexrelid, 1, true)
FROM pg_index AS i
CROSS JOIN LATERAL (
    SELECT string_agg(quote_ident(name), ' || ' ORDER BY place) AS text
    FROM unnest(%(columns)s::text[]) WITH ORDINALITY AS c (name, place)) AS joined
WHERE i.indrelid = to_regclass(quote_ident(%(table)s)) AND i.indisvalid
  AND pg_get_expr(i.indpred, i.indrelid) = '"shouldUpdateSequenceId"'
  AND pg_get_indexdef(i.indexrelid, 1, true)
      = format('(lpad(to_hex(hashtextextended(%%s, 0::bigint)), 32, ''0''::text)::uuid)', joined.text)
  AND NOT EXISTS (SELECT FROM pg_attribute AS a
                  WHERE a.attrelid = i.indrelid AND a.attname = ANY (%(columns)s) AND NOT a.attnotnull)
LIMIT 1
