"""Cursors, records and owner of a copy that is a file: the statements that SQLite and DuckDB read alike."""

from __future__ import annotations

OWNED_BY = "SELECT tenancy_id FROM _stack_sync_owner"
CLAIM = "INSERT INTO _stack_sync_owner (tenancy_id) VALUES (?) ON CONFLICT DO NOTHING"
CURSORS = "SELECT mapping_name, last_synced_sequence_id, updated_at FROM _stack_sync_metadata"
CURSOR = "SELECT last_synced_sequence_id FROM _stack_sync_metadata WHERE mapping_name = ?"
ADD_CURSOR = (
    "INSERT INTO _stack_sync_metadata (mapping_name, last_synced_sequence_id, updated_at) VALUES (?, -1, ?) "
    "ON CONFLICT DO NOTHING"
)
CREATE_RECORDS = """
CREATE TABLE IF NOT EXISTS _stack_sync_mapping (
    mapping_name VARCHAR PRIMARY KEY,
    fingerprint VARCHAR NOT NULL,
    definition VARCHAR NOT NULL,
    resend_after BIGINT,
    resend_up_to BIGINT
)
"""
RECORDS = "SELECT mapping_name, fingerprint, definition, resend_after, resend_up_to FROM _stack_sync_mapping"
RECORD = "SELECT fingerprint, definition, resend_after, resend_up_to FROM _stack_sync_mapping WHERE mapping_name = ?"
WRITE_RECORD = (
    "INSERT INTO _stack_sync_mapping (mapping_name, fingerprint, definition, resend_after, resend_up_to)"
    " VALUES (?, ?, ?, ?, ?) ON CONFLICT (mapping_name) DO UPDATE SET fingerprint = excluded.fingerprint,"
    " definition = excluded.definition, resend_after = excluded.resend_after, resend_up_to = excluded.resend_up_to"
)
FORGET_CURSOR = "DELETE FROM _stack_sync_metadata WHERE mapping_name = ?"
ADVANCE = "UPDATE _stack_sync_metadata SET last_synced_sequence_id = ?, updated_at = ? WHERE mapping_name = ?"
PLACES_TABLE = """
CREATE TABLE IF NOT EXISTS _stack_sync_place (mapping_name VARCHAR PRIMARY KEY, identity VARCHAR NOT NULL)
"""
PLACES = "SELECT mapping_name, identity FROM _stack_sync_place"
RECORD_PLACE = (
    "INSERT INTO _stack_sync_place (mapping_name, identity) VALUES (?, ?) "
    "ON CONFLICT (mapping_name) DO UPDATE SET identity = excluded.identity"
)
