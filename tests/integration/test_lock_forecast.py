"""The locks that statements really take, as the check measures them, against what is known of PostgreSQL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString, cast

import psycopg
import pytest
from psycopg import sql

from stackctl.migrate import lock_forecast
from stackctl.migrate.compatibility.statement_observer import StatementObserver
from stackctl.migrate.files import parse_migration
from stackctl.migrate.lock_modes import MODES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackctl.migrate.compatibility.statement_observer import MeasuredStatement
    from stackctl.postgres.embedded import EmbeddedServer

SCENE = """
CREATE TABLE parent (id int PRIMARY KEY, name text);
CREATE TABLE child (id int PRIMARY KEY, parent int, note text, amount int);
ALTER TABLE child ADD CONSTRAINT positive CHECK (amount > 0) NOT VALID,
  ADD CONSTRAINT to_parent FOREIGN KEY (parent) REFERENCES parent (id) NOT VALID;
CREATE INDEX by_note ON child (note);
CREATE UNIQUE INDEX unique_note ON child (note);
CREATE VIEW shown AS SELECT id, note FROM child;
CREATE MATERIALIZED VIEW summed AS SELECT parent, count(*) FROM child GROUP BY parent;
CREATE SEQUENCE counter;
CREATE TABLE log (id int, day date) PARTITION BY RANGE (day);
CREATE TABLE log_2026 PARTITION OF log FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE log_2027 (id int, day date);
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER noted AFTER INSERT ON child FOR EACH ROW EXECUTE FUNCTION noted();
INSERT INTO parent SELECT n, n::text FROM generate_series(1, 50) AS n;
INSERT INTO child SELECT n, n, n::text, n FROM generate_series(1, 50) AS n;
"""

AE, E, SRE, S = "AccessExclusiveLock", "ExclusiveLock", "ShareRowExclusiveLock", "ShareLock"
SUE, RE, RS, AS = "ShareUpdateExclusiveLock", "RowExclusiveLock", "RowShareLock", "AccessShareLock"

# Locks on tables, views and sequences; what is left out takes none of what was there.
LOCKS: dict[str, dict[str, str]] = {
    "CREATE TABLE fresh (id int PRIMARY KEY)": {},
    "CREATE TABLE fresh (child int REFERENCES child)": {"child": SRE},
    "CREATE TABLE fresh (LIKE child)": {"child": AS},
    "CREATE TABLE log_2028 PARTITION OF log FOR VALUES FROM ('2028-01-01') TO ('2029-01-01')": {"log": AE},
    "CREATE INDEX fresh ON child (amount)": {"child": S},
    "REINDEX TABLE child": {"child": S},
    "DROP INDEX by_note": {"child": AE},
    "ALTER INDEX by_note RENAME TO other": {},
    "ALTER TABLE child ADD COLUMN fresh int": {"child": AE},
    "ALTER TABLE child ADD COLUMN fresh uuid DEFAULT gen_random_uuid()": {"child": AE},
    "ALTER TABLE child DROP COLUMN amount": {"child": AE},
    "ALTER TABLE child RENAME COLUMN note TO text": {"child": AE},
    "ALTER TABLE child RENAME TO kid": {"child": AE},
    "ALTER TABLE child ALTER note SET NOT NULL": {"child": AE},
    "ALTER TABLE child ALTER note SET DEFAULT ''": {"child": AE},
    "ALTER TABLE child ALTER amount TYPE bigint": {"child": AE},
    "ALTER TABLE child ALTER note SET STATISTICS 100": {"child": SUE},
    "ALTER TABLE child SET (fillfactor = 80)": {"child": SUE},
    "ALTER TABLE child SET LOGGED": {"child": AE},
    "ALTER TABLE child CLUSTER ON by_note": {"child": SUE},
    "ALTER TABLE child ADD CHECK (id > 0)": {"child": AE},
    "ALTER TABLE child ADD CHECK (id > 0) NOT VALID": {"child": AE},
    "ALTER TABLE child VALIDATE CONSTRAINT positive": {"child": SUE},
    "ALTER TABLE child ADD FOREIGN KEY (id) REFERENCES parent": {"child": SRE, "parent": SRE},
    "ALTER TABLE child VALIDATE CONSTRAINT to_parent": {"child": SUE, "parent": RS},
    "ALTER TABLE child DROP CONSTRAINT to_parent": {"child": AE, "parent": AE},
    "ALTER TABLE child ADD UNIQUE (amount)": {"child": AE},
    "ALTER TABLE child ADD CONSTRAINT one UNIQUE USING INDEX unique_note": {"child": AE},
    "ALTER TABLE child DISABLE TRIGGER noted": {"child": SRE},
    "ALTER TABLE child ENABLE ROW LEVEL SECURITY": {"child": AE},
    "ALTER TABLE log ATTACH PARTITION log_2027 FOR VALUES FROM ('2027-01-01') TO ('2028-01-01')": {
        "log": SUE, "log_2027": AE,
    },
    "ALTER TABLE log DETACH PARTITION log_2026": {"log": AE, "log_2026": AE},
    "CREATE TRIGGER fresh BEFORE UPDATE ON child FOR EACH ROW EXECUTE FUNCTION noted()": {"child": SRE},
    "DROP TRIGGER noted ON child": {"child": AE},
    "CREATE POLICY fresh ON child USING (true)": {"child": AE},
    "CREATE VIEW fresh AS SELECT * FROM child": {"child": AS},
    "CREATE OR REPLACE VIEW shown AS SELECT id, note FROM child WHERE id > 0": {"shown": AE, "child": AS},
    "DROP VIEW shown": {"shown": AE},
    "REFRESH MATERIALIZED VIEW summed": {"summed": AE, "child": AS},
    "COMMENT ON TABLE child IS 'x'": {"child": SUE},
    "TRUNCATE child": {"child": AE},
    "DROP TABLE child CASCADE": {"child": AE, "parent": AE, "shown": AE, "summed": AE},
    "DROP TABLE log_2026": {"log_2026": AE, "log": AE},
    "LOCK TABLE child IN EXCLUSIVE MODE": {"child": E},
    "INSERT INTO parent VALUES (100)": {"parent": RE},
    "INSERT INTO child VALUES (100, 1)": {"child": RE, "parent": RS},
    "UPDATE child SET note = 'x' || note": {"child": RE},
    "DELETE FROM parent WHERE id = 100": {"parent": RE},
    "SELECT * FROM child FOR UPDATE": {"child": RS},
    "SELECT nextval('counter')": {"counter": RE},
    "ALTER SEQUENCE counter INCREMENT 5": {"counter": SRE},
    "GRANT SELECT ON child TO PUBLIC": {"child": AS},
    "CREATE STATISTICS fresh ON id, parent FROM child": {"child": SUE},
    "ANALYZE child": {"child": SUE},
}  # fmt: skip
REWRITES = {
    "ALTER TABLE child ADD COLUMN fresh uuid DEFAULT gen_random_uuid()": ("child",),
    "ALTER TABLE child ALTER amount TYPE bigint": ("child",),
    "REFRESH MATERIALIZED VIEW summed": ("summed",),
}


@pytest.fixture(scope="module")
def conn(server: EmbeddedServer) -> Iterator[psycopg.Connection[Any]]:
    server.ensure_database("locks")
    with psycopg.connect(server.url("locks"), autocommit=True) as connection:
        connection.execute(SCENE)
        yield connection
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE locks WITH (FORCE)"))


def measure(conn: psycopg.Connection[Any], text: str) -> MeasuredStatement:
    migration = parse_migration(text, Path("x.sql"), "20260101000000_x")
    (statement,) = migration.pieces[0].statements
    observer = StatementObserver(conn, "public")
    with conn.transaction(force_rollback=True), observer.measure(migration, statement):
        conn.execute(cast("LiteralString", text))
    (measured,) = observer.measured
    return measured


@pytest.mark.parametrize("text", LOCKS)
def test_measured(conn: psycopg.Connection[Any], text: str) -> None:
    measured = measure(conn, text)
    indexes = {"by_note", "unique_note", "child_pkey", "parent_pkey"}
    assert {lock.relation: lock.mode for lock in measured.locks if lock.relation not in indexes} == LOCKS[text]
    assert measured.rewrites == REWRITES.get(text, ())


@pytest.mark.parametrize("text", LOCKS)
def test_the_forecast_of_a_dry_run_is_not_weaker(text: str) -> None:
    """What holds the application up is named, or said to be there without a name."""
    forecast = lock_forecast.forecast_statement(text, "public")
    named = {lock.qualified: lock.mode for lock in forecast.locks if lock.qualified}
    nameless = max((MODES.index(lock.mode) for lock in forecast.locks if not lock.qualified), default=-1)
    for relation, mode in LOCKS[text].items():
        said = max(MODES.index(named.get(f'"public"."{relation}"', AS)), nameless)
        assert MODES.index(mode) <= max(said, MODES.index(RE)), relation


def test_an_index_counts_where_it_is_locked_harder_than_its_table(conn: psycopg.Connection[Any]) -> None:
    lock_forecast = {lock.relation: lock.mode for lock in measure(conn, "REINDEX TABLE child").locks}
    assert lock_forecast["by_note"] == AE
    assert "by_note" not in {
        lock.relation for lock in measure(conn, "ALTER TABLE child DROP COLUMN note CASCADE").locks
    }
