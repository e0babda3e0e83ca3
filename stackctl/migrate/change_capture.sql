-- Who marks changed rows in the operated database?

-- name: read_capture_facts
-- Any trigger that captures changes; the columns of the marks; a unique index on the stamps, which stackctl never makes.
SELECT EXISTS (
         SELECT FROM pg_trigger AS t
         JOIN pg_proc AS p ON p.oid = t.tgfoid
         JOIN pg_class AS c ON c.oid = t.tgrelid
         WHERE c.relnamespace = to_regnamespace(quote_ident(%(schema)s)) AND NOT t.tgisinternal
           AND (p.proname = 'reset_sequence_id_on_update' OR p.proname LIKE 'log\_deleted\_%%')),
       EXISTS (
         SELECT FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
         WHERE c.relnamespace = to_regnamespace(quote_ident(%(schema)s)) AND c.relname = 'ProjectUser'
           AND a.attname = 'shouldUpdateSequenceId' AND NOT a.attisdropped),
       EXISTS (
         SELECT FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid
         WHERE c.relnamespace = to_regnamespace(quote_ident(%(schema)s)) AND c.relname = 'ProjectUser'
           AND i.indisunique AND i.indnkeyatts = 1
           AND pg_get_indexdef(i.indexrelid, 1, true) = '"sequenceId"')
