"""Every rule of the contract, on catalogs read from a real server: what breaks the running version, and what passes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from stackctl.migrate.compatibility import contract
from stackctl.migrate.compatibility.contract_rules import RULES
from stackctl.migrate.schema import catalog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackctl.postgres.embedded import EmbeddedServer

BASE = """
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE unused AS ENUM ('x');
CREATE TYPE pair AS (a int, b int);
CREATE DOMAIN short AS text CHECK (length(VALUE) < 10);
CREATE TABLE team (
  id int PRIMARY KEY, "displayName" text, code varchar(10) UNIQUE, size int DEFAULT 1, kind text NOT NULL DEFAULT 'a',
  mood mood, cents numeric(10, 2), born timestamp, CONSTRAINT size_positive CHECK (size > 0),
  seen text, CONSTRAINT seen_there CHECK (seen IS NOT NULL)
);
CREATE TABLE member (
  id int PRIMARY KEY, team int, CONSTRAINT in_team FOREIGN KEY (team) REFERENCES team (id), room int,
  "during" int4range,
  CONSTRAINT no_overlap EXCLUDE USING gist ("during" WITH &&)
);
CREATE INDEX member_room ON member (room);
CREATE TABLE spare (id int PRIMARY KEY, note text);
ALTER TABLE spare ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody ON spare USING (true);
CREATE VIEW teams AS SELECT id, "displayName" FROM team;
CREATE SEQUENCE ticket;
CREATE FUNCTION add(a int, b int) RETURNS int LANGUAGE sql AS 'SELECT a + b';
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER noted AFTER INSERT ON spare FOR EACH ROW EXECUTE FUNCTION noted();
GRANT SELECT ON team TO contract_reader;
GRANT SELECT (id) ON member TO contract_reader;
"""

BREAKS = {
    # tables, views, columns
    "DROP TABLE spare": ["drop-table"],
    "ALTER TABLE spare RENAME TO extra": ["rename-table"],
    "DROP VIEW teams": ["drop-view"],
    'CREATE OR REPLACE VIEW teams AS SELECT id, "displayName" FROM team WHERE id > 0': ["view-changed"],
    "ALTER TABLE spare RENAME TO extra; CREATE VIEW spare AS SELECT * FROM extra": ["relation-kind"],
    "ALTER TABLE member DROP COLUMN room": ["drop-column"],
    "ALTER TABLE member RENAME COLUMN room TO place": ["rename-column"],
    "ALTER TABLE member DROP COLUMN room, ADD COLUMN place text": ["drop-column"],
    "ALTER TABLE member ALTER room TYPE text": ["column-type-change"],
    "ALTER TABLE member ALTER room TYPE bigint": ["column-widened"],
    "ALTER TABLE team ALTER code TYPE varchar(5)": ["column-type-change"],
    "ALTER TABLE team ALTER cents TYPE numeric(12, 4)": ["column-type-change"],
    "ALTER TABLE team ALTER cents TYPE numeric(12, 2)": ["column-widened"],
    "ALTER TABLE team ALTER born TYPE timestamptz": ["column-type-change"],
    "ALTER TABLE member ADD COLUMN place text NOT NULL": ["not-null-without-default"],
    'ALTER TABLE team ALTER "displayName" SET NOT NULL': ["set-not-null"],
    "ALTER TABLE spare ALTER id ADD GENERATED ALWAYS AS IDENTITY": ["column-generated"],
    "ALTER TABLE team ALTER kind DROP DEFAULT": ["drop-default"],
    "ALTER TABLE team ALTER size DROP DEFAULT": ["default-changed"],
    "ALTER TABLE team ALTER kind SET DEFAULT 'b'": ["default-changed"],
    # constraints and indexes
    "ALTER TABLE member ADD CHECK (room > 0)": ["check-added"],
    "ALTER TABLE member ADD CHECK (room > 0) NOT VALID": ["check-added"],
    "ALTER TABLE spare ADD FOREIGN KEY (id) REFERENCES team (id)": ["foreign-key-added"],
    "CREATE TABLE badge (team int REFERENCES team (id))": ["foreign-key-onto"],
    "ALTER TABLE spare ADD COLUMN team int REFERENCES team (id)": ["foreign-key-onto"],
    "ALTER TABLE member ADD UNIQUE (room)": ["unique-added"],
    "CREATE UNIQUE INDEX ON member (room) WHERE room > 0": ["unique-added"],
    "ALTER TABLE spare ADD EXCLUDE USING btree (note WITH =)": ["exclusion-added"],
    "ALTER TABLE team DROP CONSTRAINT size_positive, ADD CONSTRAINT size_positive CHECK (size > 1)": [
        "constraint-changed",
    ],
    "ALTER TABLE team RENAME CONSTRAINT size_positive TO positive": ["constraint-renamed"],
    "ALTER TABLE team RENAME CONSTRAINT team_code_key TO code": ["constraint-renamed"],
    "ALTER TABLE team DROP CONSTRAINT team_code_key": ["drop-unique"],
    "ALTER TABLE member DROP CONSTRAINT no_overlap": ["drop-unique"],
    "ALTER TABLE member DROP CONSTRAINT in_team": ["drop-foreign-key"],
    "DROP INDEX member_room": ["drop-index"],
    # types, functions, sequences
    "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'": ["rename-enum-value"],
    "ALTER TYPE mood RENAME TO feeling; CREATE TYPE mood AS ENUM ('ok', 'happy');"
    "ALTER TABLE team ALTER mood TYPE mood USING mood::text::mood; DROP TYPE feeling": ["drop-enum-value"],
    "DROP TYPE unused": ["drop-type"],
    "ALTER TYPE pair ADD ATTRIBUTE c int": ["type-changed"],
    "ALTER DOMAIN short ADD CHECK (VALUE <> '')": ["type-changed"],
    "DROP FUNCTION add": ["drop-function"],
    "DROP FUNCTION add; CREATE FUNCTION add(a bigint, b int) RETURNS int LANGUAGE sql AS 'SELECT 1'": [
        "function-arguments",
    ],
    "DROP FUNCTION add; CREATE FUNCTION add(x int, y int) RETURNS int LANGUAGE sql AS 'SELECT 1'": [
        "function-arguments",
    ],
    "DROP FUNCTION add; CREATE FUNCTION add(a int, b int) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'": [
        "function-result",
    ],
    "DROP SEQUENCE ticket": ["drop-sequence"],
    "ALTER SEQUENCE ticket INCREMENT 11": ["sequence-changed"],
    # rights, triggers
    "REVOKE SELECT ON team FROM contract_reader": ["grant-revoked"],
    "REVOKE SELECT (id) ON member FROM contract_reader": ["grant-revoked"],
    "REVOKE EXECUTE ON FUNCTION add FROM PUBLIC": ["grant-revoked"],
    "ALTER TABLE team ENABLE ROW LEVEL SECURITY": ["row-security-enabled"],
    "ALTER TABLE spare FORCE ROW LEVEL SECURITY": ["row-security-enabled"],
    "ALTER POLICY everybody ON spare USING (id > 0)": ["policy-changed"],
    "CREATE TRIGGER seen BEFORE UPDATE ON member FOR EACH ROW EXECUTE FUNCTION noted()": ["trigger-added"],
    "DROP TRIGGER noted ON spare": ["trigger-dropped"],
    "ALTER TABLE spare DISABLE TRIGGER noted": ["trigger-changed"],
}

PASSES = (
    "CREATE TABLE fresh (id int PRIMARY KEY, name text NOT NULL CHECK (name <> ''))",
    "ALTER TABLE member ADD COLUMN place text",
    "ALTER TABLE member ADD COLUMN place text NOT NULL DEFAULT ''",
    "ALTER TABLE member ADD COLUMN place int GENERATED ALWAYS AS (room + 1) STORED NOT NULL",
    "ALTER TABLE member ADD COLUMN place int CHECK (place > 0) UNIQUE",
    "ALTER TABLE member ADD COLUMN place uuid UNIQUE DEFAULT gen_random_uuid()",
    "ALTER TABLE spare ADD COLUMN team int REFERENCES team (id) ON DELETE CASCADE",
    "ALTER TABLE team ALTER code TYPE varchar(20)",
    "ALTER TABLE team ALTER code TYPE text",
    "ALTER TABLE team ALTER kind DROP NOT NULL",
    "ALTER TABLE team ALTER \"displayName\" SET DEFAULT ''",
    "ALTER TABLE team ALTER seen SET NOT NULL",
    "ALTER TABLE team DROP CONSTRAINT size_positive",
    "ALTER TABLE team DROP CONSTRAINT team_code_key; CREATE UNIQUE INDEX team_code_key ON team (code)",
    "CREATE INDEX ON team (size)",
    "DROP INDEX member_room; CREATE INDEX again ON member (room)",
    "ALTER TYPE mood ADD VALUE 'calm' BEFORE 'ok'",
    "DROP FUNCTION add; CREATE FUNCTION add(a int, b int, c int DEFAULT 0) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE OR REPLACE FUNCTION add(a int, b int) RETURNS int LANGUAGE sql AS 'SELECT 2'",
    'DROP VIEW teams; CREATE VIEW teams AS SELECT id, "displayName", size FROM team',
    "GRANT INSERT ON team TO contract_reader",
    "CREATE POLICY another ON team USING (false)",
    "ALTER TABLE team CLUSTER ON team_pkey; COMMENT ON TABLE team IS 'hello'",
)


@pytest.fixture(scope="module")
def conn(server: EmbeddedServer) -> Iterator[psycopg.Connection[Any]]:
    server.ensure_database("contract")
    with psycopg.connect(server.url("contract"), autocommit=True) as connection:
        connection.execute("CREATE ROLE contract_reader")
        connection.execute(BASE)
        yield connection
        connection.execute("DROP OWNED BY contract_reader; DROP ROLE contract_reader")
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE contract WITH (FORCE)"))


@pytest.fixture(scope="module")
def base(conn: psycopg.Connection[Any]) -> catalog.Catalog:
    return catalog.read_catalog(conn, "public")


def rules(conn: psycopg.Connection[Any], base: catalog.Catalog, change: str) -> list[str]:
    """What the change breaks; it is rolled back."""
    with conn.transaction(force_rollback=True):
        conn.execute(change)  # type: ignore[arg-type]
        return sorted(breach.rule for breach in contract.find_breaches(base, catalog.read_catalog(conn, "public")))


@pytest.mark.parametrize("change", BREAKS)
def test_a_change_that_hurts_is_named(conn: psycopg.Connection[Any], base: catalog.Catalog, change: str) -> None:
    assert rules(conn, base, change) == BREAKS[change]


@pytest.mark.parametrize("change", PASSES)
def test_a_change_that_asks_nothing_passes(conn: psycopg.Connection[Any], base: catalog.Catalog, change: str) -> None:
    assert rules(conn, base, change) == []


def test_every_rule_is_broken_by_some_change_above_and_explained() -> None:
    assert {rule for found in BREAKS.values() for rule in found} == set(RULES)
    page = (Path(__file__).parents[2] / "docs" / "migration-check.md").read_text(encoding="utf-8")
    for id_, rule in RULES.items():
        assert f"| `{id_}` | {rule.severity} | {rule.why} | {rule.safe} |" in page
