"""What lint asks a database, against a real server. Nothing it is shown is executed."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from stackctl.migrate.lint.database_facts import DatabaseFacts
from stackctl.migrate.lint.linter import LintFile, lint_files
from tests.unit.test_lint_rules import BAD, GOOD, cases

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stackctl.migrate.lint.findings import LintFinding
    from stackctl.postgres.embedded import EmbeddedServer

SCHEMA = """
CREATE TABLE tiny (id int PRIMARY KEY, a text, checked text CHECK (checked IS NOT NULL), sure text NOT NULL);
INSERT INTO tiny VALUES (1, 'a', 'b', 'c');
CREATE TABLE "Large" (id int, a text, short varchar(20), price numeric(10, 2), at timestamp(3), code char(3));
INSERT INTO "Large" SELECT n, repeat('x', 100) FROM generate_series(1, 20000) AS n;
ALTER TABLE "Large" ADD CONSTRAINT unchecked CHECK (a IS NOT NULL) NOT VALID;
ALTER TABLE "Large" ADD CONSTRAINT checked CHECK (a <> '' AND id IS NOT NULL);
ANALYZE "Large";
CREATE TABLE parted (id int, at date) PARTITION BY LIST (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
CREATE INDEX ON parted (id, at);
INSERT INTO parted SELECT 1, now() FROM generate_series(1, 40000);
CREATE FUNCTION steady() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
CREATE FUNCTION moody() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1';
CREATE SCHEMA other;
CREATE DOMAIN checked AS int CHECK (VALUE > 0);
CREATE DOMAIN on_checked AS checked;
CREATE DOMAIN never_null AS int NOT NULL DEFAULT 1;
CREATE DOMAIN random AS uuid DEFAULT gen_random_uuid();
CREATE DOMAIN moody_default AS int DEFAULT (1 + random())::int;
CREATE DOMAIN steady_default AS int DEFAULT 2;
CREATE DOMAIN plain AS int;
CREATE FUNCTION other.moody() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
"""


@pytest.fixture(scope="module")
def conn(server: EmbeddedServer) -> Iterator[psycopg.Connection[Any]]:
    """One database for all: lint leaves it as it is."""
    name = f"lint_{secrets.token_hex(6)}"
    server.ensure_database(name)
    with psycopg.connect(server.url(name), autocommit=True) as conn:
        conn.execute(SCHEMA)
        yield conn
    with psycopg.connect(server.url(), autocommit=True) as other:
        other.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def run(conn: psycopg.Connection[Any], directory: Path, text: str) -> list[LintFinding]:
    path = directory / "20260101000000_case.sql"
    path.write_text(text, encoding="utf-8")
    return lint_files([LintFile(path, path.stem)], schema="public", database=DatabaseFacts(conn))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        # what is done to a tiny table is done in a moment
        ("CREATE INDEX ON tiny (a)", [("index-not-concurrent", "advice")]),
        ('CREATE INDEX ON "Large" (a)', [("index-not-concurrent", "error")]),
        ("CREATE INDEX ON absent (a)", [("index-not-concurrent", "error")]),
        (
            'ALTER TABLE "Large" ADD CHECK (id > 0)',
            [("constraint-not-valid-missing", "error"), ("check-added", "advice")],
        ),
        (
            "ALTER TABLE tiny ADD CHECK (id > 0)",
            [("constraint-not-valid-missing", "advice"), ("check-added", "advice")],
        ),
        ("UPDATE tiny SET a = ''", [("whole-table-at-once", "advice")]),
        ("DELETE FROM parted", [("whole-table-at-once", "error")]),
        # but compatibility has nothing to do with size
        ("DROP TABLE tiny", [("drop-table", "error")]),
        # NOT NULL
        ("ALTER TABLE tiny ALTER checked SET NOT NULL", []),
        ("ALTER TABLE tiny ALTER sure SET NOT NULL", []),
        ('ALTER TABLE "Large" ALTER a SET NOT NULL', [("set-not-null", "error")]),
        ('ALTER TABLE "Large" ALTER id SET NOT NULL', []),
        ('ALTER TABLE "Large" ALTER price SET NOT NULL', [("set-not-null", "error")]),
        # volatility
        ('ALTER TABLE "Large" ADD b int DEFAULT steady()', []),
        ('ALTER TABLE "Large" ADD b int DEFAULT moody()', [("volatile-default", "error")]),
        ('ALTER TABLE "Large" ADD b int DEFAULT other.moody()', []),
        ('ALTER TABLE "Large" ADD b int DEFAULT missing()', [("default-not-known", "warning")]),
        # the same bytes
        ('ALTER TABLE "Large" ALTER short TYPE varchar(50)', []),
        ('ALTER TABLE "Large" ALTER short TYPE text', []),
        ('ALTER TABLE "Large" ALTER short TYPE varchar', []),
        ('ALTER TABLE "Large" ALTER short TYPE varchar(10)', [("column-type-change", "error")]),
        ('ALTER TABLE "Large" ALTER short TYPE text USING lower(short)', [("column-type-change", "error")]),
        ('ALTER TABLE "Large" ALTER a TYPE varchar', []),
        ('ALTER TABLE "Large" ALTER a TYPE varchar(500)', [("column-type-change", "error")]),
        ('ALTER TABLE "Large" ALTER price TYPE numeric(12, 2)', []),
        ('ALTER TABLE "Large" ALTER price TYPE numeric', []),
        ('ALTER TABLE "Large" ALTER price TYPE numeric(12, 3)', [("column-type-change", "error")]),
        ('ALTER TABLE "Large" ALTER id TYPE bigint', [("column-type-change", "error")]),
        ('ALTER TABLE "Large" ALTER code TYPE text', [("column-type-change", "error")]),
        ('ALTER TABLE "Large" ALTER short TYPE no_such_type', [("column-type-change", "error")]),
        # partitions
        ("CREATE INDEX ON ONLY parted (at)", []),
        ('CREATE INDEX ON ONLY "Large" (a)', [("index-not-concurrent", "error")]),
        (
            "-- stackctl:outside-transaction\nCREATE INDEX CONCURRENTLY i ON parted (at)",
            [("concurrently-on-partitioned", "error")],
        ),
        # indexes that are there
        (
            "CREATE TABLE n (id bigint PRIMARY KEY); ALTER TABLE parted ADD FOREIGN KEY (id) REFERENCES n NOT VALID",
            [("foreign-key-added", "advice")],
        ),
        (
            "CREATE TABLE n (id bigint PRIMARY KEY); ALTER TABLE parted ADD FOREIGN KEY (at) REFERENCES n NOT VALID",
            [("foreign-key-added", "advice"), ("foreign-key-without-index", "advice")],
        ),
        # syntax
        ("SELECT 1; ALTER TABLE tiny FROBNICATE", [("syntax-error", "error")]),
        # a comment may be about what the database has settled
        ("-- stackctl:allow set-not-null checked by hand\nALTER TABLE tiny ALTER sure SET NOT NULL", []),
    ],
)
def test_the_database_settles_it(
    text: str, left: list[tuple[str, str]], conn: psycopg.Connection[Any], tmp_path: Path
) -> None:
    assert [(f.rule, f.severity) for f in run(conn, tmp_path, text)] == left


@pytest.mark.parametrize(
    ("ddl", "rewritten"),
    [
        ("short TYPE varchar(50)", False),
        ("short TYPE text", False),
        ("short TYPE varchar(10)", True),
        ("a TYPE varchar", False),
        ("a TYPE varchar(500)", True),
        ("price TYPE numeric(12, 2)", False),
        ("price TYPE numeric", False),
        ("price TYPE numeric(12, 3)", True),
        ("at TYPE timestamp(6)", False),
        ("at TYPE timestamp", False),
        ("at TYPE timestamp(2)", True),
        ("id TYPE bigint", True),
        ("code TYPE text", True),
        ("code TYPE varchar(3)", True),
        ("id TYPE oid", False),
    ],
)
def test_a_type_change_keeps_the_bytes_as_the_server_does_it(
    ddl: str, rewritten: bool, conn: psycopg.Connection[Any], tmp_path: Path
) -> None:
    """The answer against the table's file: a rewrite gives it a new one."""
    found = any(f.rule == "column-type-change" for f in run(conn, tmp_path, f'ALTER TABLE "Large" ALTER {ddl}'))
    conn.execute("SET default_transaction_read_only = off")
    file = "SELECT pg_relation_filenode('\"Large\"')"
    with conn.transaction(force_rollback=True):
        before = conn.execute(file).fetchone()
        conn.execute(f'ALTER TABLE "Large" ALTER {ddl}'.encode())
        assert (conn.execute(file).fetchone() != before) is rewritten
    assert found is rewritten


@pytest.mark.parametrize(
    ("type_", "rewritten"),
    [
        ("checked", True),
        ("checked DEFAULT 1", True),
        ("on_checked", True),
        ("never_null", True),
        ("random", True),
        ("moody_default", True),
        ("steady_default", False),
        ("plain", False),
        ("checked[]", False),
        ("int", False),
    ],
)
def test_a_column_of_a_domain_rewrites_as_the_server_does_it(
    type_: str, rewritten: bool, conn: psycopg.Connection[Any], tmp_path: Path
) -> None:
    found = any(f.rule == "domain-column-added" for f in run(conn, tmp_path, f'ALTER TABLE "Large" ADD new {type_}'))
    conn.execute("SET default_transaction_read_only = off")
    file = "SELECT pg_relation_filenode('\"Large\"')"
    with conn.transaction(force_rollback=True):
        before = conn.execute(file).fetchone()
        conn.execute(f'ALTER TABLE "Large" ADD new {type_}'.encode())
        assert (conn.execute(file).fetchone() != before) is rewritten
    assert found is rewritten


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("ALTER TABLE tiny FROBNICATE", 1, 18),
        ("SELECT 1;\n  UPDATE tiny\n  SET a = WHERE b", 3, 11),
        ("SELECT 'ä', 1 +", 1, 15),
        ("CREATE TABLE x (a text,)", 1, 24),
    ],
)
def test_a_syntax_error_has_its_place(
    text: str, line: int, column: int, conn: psycopg.Connection[Any], tmp_path: Path
) -> None:
    (finding,) = run(conn, tmp_path, text)
    assert (finding.rule, finding.line, finding.column) == ("syntax-error", line, column)


def test_sizes_are_told(conn: psycopg.Connection[Any], tmp_path: Path) -> None:
    (finding,) = run(conn, tmp_path, 'CREATE INDEX ON "Large" (a)')
    assert "about 20,000 rows, 2." in finding.what
    (finding,) = run(conn, tmp_path, "DELETE FROM parted")  # never analyzed
    assert "rows," not in finding.what
    assert "MB" in finding.what


def test_nothing_is_executed(conn: psycopg.Connection[Any], tmp_path: Path) -> None:
    run(
        conn,
        tmp_path,
        "DROP TABLE tiny; SELECT pg_sleep(60); DO $$ BEGIN DELETE FROM tiny; END $$; COMMIT; DROP TABLE tiny",
    )
    assert conn.execute("SELECT count(*) FROM tiny").fetchone() == (1,)
    (quoted,) = run(conn, tmp_path, "DO $stackctl$ BEGIN DROP TABLE tiny; END $stackctl$")
    assert quoted.rule == "drop-table"
    assert conn.execute("SELECT count(*) FROM tiny").fetchone() == (1,)


@pytest.mark.parametrize(
    ("rule", "text"),
    [case for case in cases(BAD) + cases(GOOD) if case not in cases({"not-understood": BAD["not-understood"]})],
)
def test_the_server_can_read_every_example_and_every_safe_way(
    rule: str, text: str, conn: psycopg.Connection[Any], tmp_path: Path
) -> None:
    found = run(conn, tmp_path, text)
    assert "syntax-error" not in [finding.rule for finding in found]
    for finding in found:
        again = run(conn, tmp_path, finding.suggestion) if finding.suggestion else []
        assert [f.what for f in again if f.rule == "syntax-error"] == [], finding.suggestion
