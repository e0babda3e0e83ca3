"""kill -9 again and again, in a folder that uses every directive: in the end it is as if nothing had happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from psycopg import sql

from stackctl.migrate.folder import discover
from stackctl.migrate.schema.dump import dump_schema
from tests.backend import Project, ended, fetch
from tests.migrations import Connection, verify, write_files

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Connect

KILLED = -9

FILES = {
    "beginning": """CREATE TABLE /* SCHEMA_NAME_SENTINEL */.work AS
  SELECT id, 0 AS times, 0 AS again FROM generate_series(1, 35) AS id;
CREATE TABLE a (x int);
CREATE TYPE mood AS ENUM ('good');
""",
    "pieces": """INSERT INTO a VALUES (1);
-- stackctl:split
-- stackctl:outside-transaction
CREATE INDEX CONCURRENTLY first ON a (x);
CREATE UNIQUE INDEX CONCURRENTLY second ON a ((x + 1));
ALTER TYPE mood ADD VALUE 'fine';
VACUUM a;
-- stackctl:split
INSERT INTO a VALUES (2);
INSERT INTO a VALUES (3);
""",
    "fill": """-- stackctl:repeat
WITH batch AS (SELECT id FROM work WHERE times = 0 ORDER BY id LIMIT 10 FOR UPDATE),
touched AS (UPDATE work SET times = times + 1 FROM batch WHERE work.id = batch.id RETURNING 1)
SELECT true AS should_repeat_migration FROM touched LIMIT 1;
""",
    "backends_own": """CREATE TABLE /* SCHEMA_NAME_SENTINEL */."Own" (id int);
-- SPLIT_STATEMENT_SENTINEL
-- SINGLE_STATEMENT_SENTINEL
-- RUN_OUTSIDE_TRANSACTION_SENTINEL
CREATE INDEX CONCURRENTLY IF NOT EXISTS "Own_id" ON /* SCHEMA_NAME_SENTINEL */."Own" (id);
""",
    "backends_fill": """-- CONDITIONALLY_REPEAT_MIGRATION_SENTINEL
WITH batch AS (SELECT id FROM work WHERE again = 0 ORDER BY id LIMIT 20 FOR UPDATE),
touched AS (UPDATE work SET again = again + 1 FROM batch WHERE work.id = batch.id RETURNING 1)
SELECT count(*) > 0 AS should_repeat_migration FROM touched;
""",
    "captures": """-- stackctl:change-capture
CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.x := NEW.x + 10; RETURN NEW; END $$;
CREATE TRIGGER mark BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION mark();
""",
    "dbmates": """-- migrate:up
INSERT INTO a VALUES (4);

-- migrate:down
DROP TABLE a;
""",
    "dbmates_outside": """-- migrate:up transaction:false
CREATE INDEX CONCURRENTLY third ON a ((x + 2));

-- migrate:down transaction:false
DROP INDEX CONCURRENTLY third;
""",
    "last": """-- stackctl:outside-transaction
DROP INDEX CONCURRENTLY first;
REINDEX INDEX CONCURRENTLY second;
-- stackctl:split
-- stackctl:allow drop-table
DROP TABLE "Own";
CREATE TABLE last AS SELECT x FROM a;
""",
}

RUNNER = "stackctl.migrate.runner"
# Where each run dies, and at which of its passes: each gets at least one commit further than the one before.
POINTS = {
    "after every commit": (f"{RUNNER}.run:_Runner._run_to_next_commit:after", 1),
    "before every record": (f"{RUNNER}.history:record_progress:before", 3),
    "between every record and its commit": (f"{RUNNER}.history:record_progress:after", 3),
    "before every statement outside a transaction": (f"{RUNNER}.run:_Runner._run_in_autocommit:before", 2),
    "after every statement outside a transaction": (f"{RUNNER}.run:_Runner._run_in_autocommit:after", 2),
    "in every transaction, its statements run": (f"{RUNNER}.run:_Runner._begin:after", 2),
    "in every transaction, before its statements": (f"{RUNNER}.session:Session.send_named:after", 2),
    "after every file": (f"{RUNNER}.run:_Runner.apply_file:after", 1),
}
FEWEST = {"before every statement outside a transaction": 5, "after every statement outside a transaction": 5}


def snapshot(conn: Connection) -> Any:
    """The schema, every row, and what the history says, but for times."""
    rows = {
        table: conn.execute(sql.SQL("SELECT t::text FROM {} AS t ORDER BY 1").format(sql.Identifier(table))).fetchall()
        for (table,) in fetch(conn, "SELECT relname FROM pg_class WHERE relkind = 'r'"
                                    " AND relnamespace = 'public'::regnamespace ORDER BY 1")
    }  # fmt: skip
    history = fetch(conn, "SELECT name, checksum, applied_at IS NOT NULL, pieces_done, outside_piece, repeats"
                          " FROM stackctl.migration_history ORDER BY name")  # fmt: skip
    invalid = fetch(conn, "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid")
    locks = fetch(conn, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
    return dump_schema(conn, "public"), rows, history, invalid, locks


@pytest.mark.parametrize("point", POINTS)
def test_it_converges(empty_db: str, connect: Connect, tmp_path: Path, point: str) -> None:
    conn = connect(empty_db, autocommit=True)
    folder = tmp_path / "migrations"
    folder.mkdir()
    write_files(folder, **FILES)
    project, kills = Project(tmp_path, empty_db), 0
    assert project.run("migrate", "up", "--dir", folder).code == 0
    expected = snapshot(conn)
    conn.execute("DROP TABLE a, work, last; DROP TYPE mood; DROP FUNCTION mark; DROP SCHEMA stackctl CASCADE")

    spec, count = POINTS[point]
    while (outcome := ended(project.start("migrate", "up", "--dir", folder, point=spec, count=count))).code == KILLED:
        kills += 1
        assert kills < 60, "no run got further than the one before"
    assert outcome.code == 0, outcome
    assert kills >= FEWEST.get(point, len(FILES) - 1)
    for found, wanted in zip(snapshot(conn), expected, strict=True):
        assert found == wanted
    assert verify(conn, discover(folder)) == ()
