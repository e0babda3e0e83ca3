"""The dump of a schema: the same text for the same schema, whichever way it came about."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from psycopg import errors, sql
from psycopg.pq import TransactionStatus

from stackctl.core.bundled import find_bundled
from stackctl.migrate.folder import discover
from stackctl.migrate.runner.run import apply_migrations
from stackctl.migrate.schema import catalog
from stackctl.migrate.schema.dump import dump_schema
from stackctl.postgres.binaries import find_binaries

if TYPE_CHECKING:
    import psycopg

    from stackctl.postgres.embedded import EmbeddedServer
    from tests.conftest import Connect

EVERYTHING = """
CREATE TYPE "Mood" AS ENUM ('it''s', 'ok');
CREATE TYPE pair AS (a int, "B" text);
CREATE TYPE floats AS RANGE (subtype = float8);
CREATE DOMAIN short AS varchar(20) DEFAULT 'x' NOT NULL CONSTRAINT filled CHECK (VALUE <> '');
CREATE SEQUENCE ticket AS int START 1 INCREMENT 11 CACHE 5 CYCLE;
CREATE SEQUENCE down INCREMENT -1;
CREATE FUNCTION next_code(prefix text DEFAULT 'a') RETURNS text LANGUAGE sql
  AS $$ SELECT prefix || nextval('ticket') $$;
CREATE TABLE "user" (
  id bigint GENERATED ALWAYS AS IDENTITY (START 5 INCREMENT 2) PRIMARY KEY, number serial,
  code text DEFAULT next_code(),
  "displayName" varchar(40) COLLATE "C" NOT NULL, mood "Mood" DEFAULT 'ok', tags text[] DEFAULT '{}', name short,
  two pair, doubled int GENERATED ALWAYS AS (2 * 21) STORED, at timestamptz DEFAULT '2026-01-01 00:00:00+02',
  CONSTRAINT "order" CHECK (number > 0), UNIQUE NULLS NOT DISTINCT (code), parent bigint
) WITH (fillfactor = 70);
ALTER TABLE "user" ADD CONSTRAINT self FOREIGN KEY (parent) REFERENCES "user" (id) ON DELETE SET NULL;
ALTER TABLE "user" ADD CONSTRAINT later CHECK (code <> '') NOT VALID;
CREATE FUNCTION shout(u "user") RETURNS text LANGUAGE sql STABLE AS 'SELECT upper(u."displayName")';
CREATE FUNCTION atomic(n int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT n + count(*)::int FROM "user"; END;
CREATE PROCEDURE "Tidy"(INOUT n int) LANGUAGE plpgsql AS 'BEGIN n := 1; END';
CREATE AGGREGATE total(int) (sfunc = int4pl, stype = int, initcond = '0');
CREATE TABLE event (id int, day date NOT NULL, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE event_2026 PARTITION OF event FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE event_rest PARTITION OF event (CONSTRAINT rest CHECK (id > 0)) DEFAULT;
CREATE TABLE base (a int);
CREATE TABLE derived (b int) INHERITS (base);
CREATE UNLOGGED TABLE nothing ();
CREATE INDEX by_name ON "user" (lower("displayName"), code DESC) INCLUDE (mood) WHERE number > 1;
CREATE INDEX by_day ON event (day);
CREATE VIEW a_above WITH (security_invoker = true) AS SELECT u.id, u."displayName" FROM "user" u;
CREATE MATERIALIZED VIEW a_deep AS SELECT count(*) AS n FROM a_above;
CREATE UNIQUE INDEX ON a_deep (n);
CREATE FUNCTION touched() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER touch BEFORE UPDATE OF code ON "user" FOR EACH ROW WHEN (old.code <> new.code)
  EXECUTE FUNCTION touched();
CREATE TRIGGER quiet AFTER INSERT ON event FOR EACH ROW EXECUTE FUNCTION touched();
ALTER TABLE "user" DISABLE TRIGGER touch;
ALTER TABLE base ENABLE ROW LEVEL SECURITY;
ALTER TABLE base FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON base AS RESTRICTIVE FOR UPDATE TO dump_reader USING (a > 0) WITH CHECK (a > 1);
GRANT SELECT, INSERT ON "user" TO dump_reader WITH GRANT OPTION;
GRANT UPDATE (code, mood) ON "user" TO dump_reader;
GRANT USAGE ON SEQUENCE ticket TO PUBLIC;
REVOKE EXECUTE ON FUNCTION shout FROM PUBLIC;
GRANT EXECUTE ON FUNCTION shout TO dump_reader;
REVOKE ALL ON PROCEDURE "Tidy" FROM PUBLIC;
COMMENT ON TABLE "user" IS 'it''s a user';
COMMENT ON COLUMN "user"."displayName" IS 'two
lines';
COMMENT ON CONSTRAINT "order" ON "user" IS 'c';
COMMENT ON FUNCTION next_code IS 'f';
COMMENT ON PROCEDURE "Tidy" IS 'p';
COMMENT ON AGGREGATE total (int) IS 'a';
COMMENT ON TYPE "Mood" IS 't';
COMMENT ON DOMAIN short IS 'd';
COMMENT ON INDEX by_name IS 'i';
COMMENT ON TRIGGER touch ON "user" IS 'g';
COMMENT ON POLICY own ON base IS 'y';
COMMENT ON VIEW a_above IS 'v';
COMMENT ON MATERIALIZED VIEW a_deep IS 'm';
COMMENT ON SEQUENCE ticket IS 's';
"""


def load(text: str, url: str) -> None:
    """Load a dump as an operator does."""
    done = subprocess.run(
        [find_binaries() / "psql", "-qX", "-v", "ON_ERROR_STOP=1", url], input=text, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.returncode == 0


@pytest.fixture
def second_db(server: EmbeddedServer, external_db: str) -> str:
    return external_db


@pytest.mark.quick
def test_the_bundled_set_loads_into_an_empty_database_and_gives_the_same_text(
    empty_db: str, second_db: str, connect: Connect
) -> None:
    conn, copy = connect(empty_db, autocommit=True), connect(second_db, autocommit=True)
    apply_migrations(conn, discover(find_bundled("migrations")))
    text = dump_schema(conn, "public")
    assert text == dump_schema(conn, "public")
    load(text, second_db)
    assert dump_schema(copy, "public") == text
    for table in ("ProjectUser", "ContactChannel", "DeletedRow"):
        assert f'CREATE TABLE "{table}" (' in text
    assert "OWNER" not in text and "--" not in text.split("CREATE OR REPLACE")[0]


def test_every_kind_of_thing_survives_the_round_trip(empty_db: str, second_db: str, connect: Connect) -> None:
    conn, copy = connect(empty_db, autocommit=True), connect(second_db, autocommit=True)
    conn.execute("CREATE ROLE dump_reader")
    try:
        conn.execute(EVERYTHING)
        text = dump_schema(conn, "public")
        load(text, second_db)
        assert dump_schema(copy, "public") == text
        assert "SET DATA" not in text
        facts = [_facts(connection) for connection in (conn, copy)]
        assert facts[0] == facts[1]
        assert "dump_reader" in text and "'it''s'" in text
        assert text.count("COMMENT ON") == EVERYTHING.count("COMMENT ON")
    finally:
        for connection in (conn, copy):
            connection.execute("DROP OWNED BY dump_reader")
        conn.execute("DROP ROLE dump_reader")


def _facts(conn: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    """The information schema's own view of it, independent of how the dump reads the catalog."""
    return conn.execute("""
        SELECT 'column', table_name::text, column_name::text, data_type::text, is_nullable::text, column_default::text
        FROM information_schema.columns WHERE table_schema = 'public'
        UNION ALL SELECT 'constraint', table_name, constraint_name, constraint_type, is_deferrable, enforced
        FROM information_schema.table_constraints
        WHERE table_schema = 'public' AND constraint_type <> 'CHECK'
        UNION ALL SELECT 'grant', table_name, grantee, privilege_type, is_grantable, null
        FROM information_schema.table_privileges WHERE table_schema = 'public'
        UNION ALL SELECT 'routine', routine_name, routine_type, data_type, routine_definition, null
        FROM information_schema.routines WHERE routine_schema = 'public'
        UNION ALL SELECT 'trigger', trigger_name, event_object_table, event_manipulation, action_statement, null
        FROM information_schema.triggers WHERE trigger_schema = 'public'
        UNION ALL SELECT 'sequence', sequence_name, start_value, increment, cycle_option, maximum_value
        FROM information_schema.sequences WHERE sequence_schema = 'public'
        ORDER BY 1, 2, 3, 4, 5, 6
    """).fetchall()


def test_the_way_there_does_not_show(empty_db: str, second_db: str, connect: Connect) -> None:
    """Tables, indexes, grants and functions made in another order, and by a session with other settings."""
    conn, other = connect(empty_db, autocommit=True), connect(second_db, autocommit=True)
    a = "CREATE TABLE a (id int PRIMARY KEY, at timestamptz DEFAULT '2026-01-01 00:00Z')"
    b = "CREATE TABLE b (a int REFERENCES a (id)); CREATE INDEX b1 ON b (a); CREATE INDEX b2 ON b ((a + 1))"
    view = "CREATE VIEW _first AS SELECT * FROM b"
    for statement in (a, b, view):
        conn.execute(statement)
    other.execute("SET DateStyle = 'German'; SET TimeZone = 'Asia/Tokyo'; SET search_path = pg_catalog, public")
    other.execute("CREATE TABLE public.b (a int); CREATE INDEX b2 ON public.b ((a + 1))")
    other.execute("CREATE TABLE public.a (id int, at timestamptz DEFAULT '2026-01-01 09:00+09')")
    other.execute("ALTER TABLE public.a ADD PRIMARY KEY (id); CREATE INDEX b1 ON public.b (a)")
    other.execute("CREATE VIEW public._first AS SELECT * FROM public.b")
    other.execute("ALTER TABLE public.b ADD FOREIGN KEY (a) REFERENCES public.a")
    assert dump_schema(other, "public") == dump_schema(conn, "public")


def test_another_schema_with_an_awkward_name(empty_db: str, second_db: str, connect: Connect) -> None:
    conn, copy = connect(empty_db, autocommit=True), connect(second_db, autocommit=True)
    conn.execute("""
        CREATE SCHEMA "My.App"; SET search_path = "My.App";
        CREATE TABLE "select" (id serial PRIMARY KEY);
        CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
        CREATE FUNCTION f(n int) RETURNS int LANGUAGE sql AS 'SELECT 1';
        RESET search_path
    """)
    text = dump_schema(conn, "My.App")
    load(text, second_db)
    assert dump_schema(copy, "My.App") == text
    assert 'CREATE TABLE "select" (' in text and "CREATE OR REPLACE FUNCTION f(" in text


def test_a_dump_is_the_schema_of_one_moment(empty_db: str, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is committed between two of its queries, it shows wholly or not at all."""
    conn, other = connect(empty_db, autocommit=True), connect(empty_db, autocommit=True)
    conn.execute("CREATE TABLE old (id int PRIMARY KEY, parent int REFERENCES old); CREATE INDEX gone ON old (parent)")
    before = dump_schema(conn, "public")
    other.execute("SET lock_timeout = '1ms'")
    read_rows, made = vars(catalog)["_read_rows"], []
    change = """CREATE TYPE {0} AS ENUM ('x'); CREATE TABLE {1} (id {0} PRIMARY KEY, parent int REFERENCES old);
                CREATE INDEX ON {1} (parent); GRANT SELECT ON {1} TO PUBLIC; CREATE SEQUENCE {2}"""

    def interleave(conn: psycopg.Connection[Any], statement: str, schema: str) -> Any:
        if conn.info.transaction_status == TransactionStatus.INTRANS:
            names = (sql.Identifier(f"{kind}_{statement}") for kind in ("type", "table", "sequence"))
            other.execute(sql.SQL(change).format(*names))
            made.append(statement)
            for refused in ("DROP INDEX gone", "ALTER TABLE old RENAME parent TO mother"):
                with pytest.raises(errors.LockNotAvailable):
                    other.execute(refused)
        return read_rows(conn, statement, schema)

    monkeypatch.setattr(catalog, "_read_rows", interleave)
    assert dump_schema(conn, "public") == before
    assert len(made) > 10
    monkeypatch.undo()
    assert dump_schema(conn, "public").count("CREATE TABLE") == 1 + len(made)
