"""The safe ways that lint shows, applied to a real database: they end where the statement itself would have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stackctl.migrate.folder import discover
from stackctl.migrate.lint.database_facts import DatabaseFacts
from stackctl.migrate.lint.linter import RULES, LintFile, lint_files
from stackctl.migrate.parser.token_reader import QualifiedName
from stackctl.migrate.runner.run import apply_migrations

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg

    from tests.conftest import Connect

# More rows than a batch, some of them null, in a plain table and in one with partitions.
SCHEMA = """
CREATE TYPE mood AS ENUM ('old');
CREATE TABLE "Other" (id int PRIMARY KEY);
INSERT INTO "Other" SELECT generate_series(0, 9);
CREATE TABLE "T" (id int NOT NULL, a text, n int, ref int, m mood);
CREATE INDEX old_idx ON "T" (a);
INSERT INTO "T" SELECT i, 'A' || i, nullif(i % 7, 0), i % 10 FROM generate_series(1, 2500) AS i;
CREATE TABLE parts (id int NOT NULL, a text) PARTITION BY LIST (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES IN (2);
INSERT INTO parts SELECT 1 + i % 2, 'A' || i FROM generate_series(1, 2500) AS i;
"""

NOT_NULL = {"set-not-null": RULES["set-not-null"]}
CASES = [
    ("index-not-concurrent", 'CREATE INDEX new_idx ON "T" (a)',
     "SELECT indisvalid FROM pg_index WHERE indexrelid = 'new_idx'::regclass", True),
    ("drop-index-not-concurrent", "DROP INDEX old_idx", "SELECT to_regclass('old_idx') IS NULL", True),
    ("volatile-default", 'ALTER TABLE "T" ADD COLUMN u uuid DEFAULT gen_random_uuid()',
     'SELECT count(DISTINCT u) FROM "T"', 2500),
    ("volatile-default", "ALTER TABLE parts ADD COLUMN u uuid DEFAULT gen_random_uuid()",
     "SELECT count(u) FROM parts", 2500),
    ("serial-added", 'ALTER TABLE "T" ADD COLUMN s bigserial', 'SELECT count(DISTINCT s) FROM "T"', 2500),
    ("column-type-change", 'ALTER TABLE "T" ALTER n TYPE bigint',
     'SELECT count(*) FROM "T" WHERE n_new IS NOT DISTINCT FROM n', 2500),
    ("column-type-change", "ALTER TABLE parts ALTER a TYPE int USING length(a)",
     "SELECT count(*) FROM parts WHERE a_new = length(a)", 2500),
    ("whole-table-at-once", 'UPDATE "T" SET a = lower(a)', "SELECT count(*) FROM \"T\" WHERE a LIKE 'a%'", 2500),
    ("whole-table-at-once", 'UPDATE "T" SET n = NULL', 'SELECT count(*) FROM "T" WHERE n IS NULL', 2500),
    ("whole-table-at-once", "DELETE FROM parts", "SELECT count(*) FROM parts", 0),
    ("truncate", 'TRUNCATE "T"', 'SELECT count(*) FROM "T"', 0),
    ("constraint-not-valid-missing", 'ALTER TABLE "T" ADD CHECK (id > 0)',
     "SELECT count(*) FROM pg_constraint WHERE conrelid = '\"T\"'::regclass AND contype = 'c' AND convalidated", 1),
    ("foreign-key-not-valid-missing", 'ALTER TABLE "T" ADD FOREIGN KEY (ref) REFERENCES "Other" (id)',
     "SELECT count(*) FROM pg_constraint WHERE conrelid = '\"T\"'::regclass AND contype = 'f' AND convalidated", 1),
    ("foreign-key-not-valid-missing", 'ALTER TABLE "T" ADD COLUMN r int DEFAULT 1 REFERENCES "Other"',
     "SELECT count(*) FROM pg_constraint WHERE conrelid = '\"T\"'::regclass AND contype = 'f' AND convalidated", 1),
    ("unique-not-using-index", 'ALTER TABLE "T" ADD UNIQUE (a)',
     "SELECT count(*) FROM pg_constraint WHERE conrelid = '\"T\"'::regclass AND contype = 'u'", 1),
    ("primary-key-not-using-index", 'ALTER TABLE "T" ADD PRIMARY KEY (id)',
     "SELECT count(*) FROM pg_constraint WHERE conrelid = '\"T\"'::regclass AND contype = 'p'", 1),
    ("set-not-null", 'ALTER TABLE "T" ALTER a SET NOT NULL',
     "SELECT attnotnull FROM pg_attribute WHERE attrelid = '\"T\"'::regclass AND attname = 'a'", True),
    ("enum-value-used", "ALTER TYPE mood ADD VALUE 'new'; UPDATE \"T\" SET m = 'new' WHERE id = 1",
     "SELECT m::text FROM \"T\" WHERE id = 1", "new"),
    ("rename-table", 'ALTER TABLE "T" RENAME TO "Renamed"', 'SELECT count(*) FROM "Renamed"', 2500),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "statement", "question", "answer"), CASES)
def test_the_safe_way_arrives(
    rule: str, statement: str, question: str, answer: Any, empty_db: str, connect: Connect, tmp_path: Path
) -> None:
    path = tmp_path / "20260101000000_case.sql"
    path.write_text(statement, encoding="utf-8")
    finding = next(f for f in lint_files([LintFile(path, path.stem)], schema="public") if f.rule == rule)
    path.write_text(finding.suggestion, encoding="utf-8")
    conn: psycopg.Connection[Any] = connect(empty_db, autocommit=True)
    conn.execute(SCHEMA)
    apply_migrations(connect(empty_db, autocommit=True), discover(tmp_path))
    assert conn.execute(question.encode()).fetchone() == (answer,)


def test_the_safe_way_that_this_server_knows_arrives(empty_db: str, connect: Connect, tmp_path: Path) -> None:
    conn: psycopg.Connection[Any] = connect(empty_db, autocommit=True)
    conn.execute(SCHEMA)
    path = tmp_path / "20260101000000_case.sql"
    path.write_text('ALTER TABLE "T" ALTER a SET NOT NULL', encoding="utf-8")
    database = DatabaseFacts(connect(empty_db, autocommit=True))
    (finding,) = lint_files(
        [LintFile(path, path.stem)], schema="public", server_version=database.server_version, rules=NOT_NULL
    )
    path.write_text(finding.suggestion, encoding="utf-8")
    apply_migrations(connect(empty_db, autocommit=True), discover(tmp_path))
    assert DatabaseFacts(conn).is_never_null(QualifiedName("public", "T", '"T"'), "a")
    assert lint_files([LintFile(path, path.stem)], schema="public", rules=NOT_NULL) == []
