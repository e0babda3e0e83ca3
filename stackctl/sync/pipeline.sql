-- What must be there before anything is stamped or sent.

-- name: is_migrated
SELECT to_regclass('"OutgoingRequest"') IS NOT NULL AND to_regclass('"DeletedRow"') IS NOT NULL
   AND to_regclass('stackctl.delivery') IS NOT NULL AND to_regclass('global_seq_id') IS NOT NULL
