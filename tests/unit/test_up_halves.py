"""Files of other tools: the up half, and never the other; what is ambiguous is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stackctl.core.errors import ConfigError
from stackctl.migrate.folder import discover

if TYPE_CHECKING:
    from pathlib import Path

    from stackctl.migrate.files import Migration

DBMATE = """-- migrate:up
CREATE TABLE a (x int);
INSERT INTO a VALUES (1); -- migrate:down it is not
SELECT 1;

-- migrate:down
DROP TABLE a;
"""
GOOSE = """-- a comment
-- +goose Up
-- +goose StatementBegin
CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END $$;
-- +goose StatementEnd
CREATE TABLE a (x int);
-- +goose Down
DROP TABLE a;
DROP FUNCTION f();
"""
UP = ["CREATE TABLE a (x int)"]


def one(directory: Path, text: str, name: str = "20260101000000_a.sql") -> Migration:
    (directory / name).write_text(text)
    (migration,) = discover(directory)
    return migration


def statements(migration: Migration) -> list[str]:
    return [statement.sql for piece in migration.pieces for statement in piece.statements]


@pytest.mark.parametrize(
    ("tool", "text", "expected"),
    [
        ("dbmate", DBMATE, [*UP, "INSERT INTO a VALUES (1)", "SELECT 1"]),
        ("dbmate", "--migrate:up\r\nCREATE TABLE a (x int);\r\n--migrate:down\r\nDROP TABLE a;\r\n", UP),
        ("dbmate", "-- migrate:up\nCREATE TABLE a (x int)", UP),
        ("dbmate", "-- migrate:up\n\n-- migrate:down\n", []),
        ("goose", GOOSE, ["CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END $$", *UP]),
        ("sql-migrate", "-- +migrate Up\nCREATE TABLE a (x int);\n-- +migrate Down\nDROP TABLE a;", UP),
        ("node-pg-migrate", "-- Up Migration\nCREATE TABLE a (x int);\n\n-- Down Migration\nDROP TABLE a;", UP),
        ("tern", "CREATE TABLE a (x int);\n---- create above / drop below ----\nDROP TABLE a;", UP),
        ("", "CREATE TABLE a (x int); -- down\n", UP),
        ("", "-- down to business\nCREATE TABLE a (x int);", UP),
        ("", "SELECT '\n-- migrate:down\n'", ["SELECT '\n-- migrate:down\n'"]),
    ],
)
def test_the_up_half_is_taken(tmp_path: Path, tool: str, text: str, expected: list[str]) -> None:
    migration = one(tmp_path, text)
    assert (migration.tool, statements(migration)) == (tool, expected)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("SELECT 1;\n-- migrate:up\nSELECT 2", 1),
        ("-- migrate:down\nDROP TABLE a", 1),
        ("SELECT 1;\n-- +goose Down\nDROP TABLE a", 1),
        ("-- migrate:up\nSELECT 1;\n-- +goose Down\nDROP TABLE a", 3),
        ("-- +goose ENVSUB ON\n-- +goose Up\nSELECT '$HOME'", 1),
        ("CREATE TABLE a ();\n-- DOWN\nDROP TABLE a", 2),
        ("CREATE TABLE a ();\n-- ==== Down ====\nDROP TABLE a", 2),
        ("CREATE TABLE a ();\n-- migrate down:\nDROP TABLE a", 2),
        ("CREATE TABLE a ();\n--rollback\nDROP TABLE a", 2),
        ("CREATE TABLE a ();\n-- Undo\nDROP TABLE a", 2),
    ],
)
def test_what_is_ambiguous_is_refused(tmp_path: Path, text: str, line: int) -> None:
    with pytest.raises(ConfigError) as caught:
        one(tmp_path, text)
    assert (caught.value.code, caught.value.details["line"]) == ("ambiguous-halves", line)


@pytest.mark.parametrize(
    "text",
    [
        "-- migrate:up transaction:false\nCREATE INDEX CONCURRENTLY i ON a (x);",
        "-- +goose NO TRANSACTION\n-- +goose Up\nCREATE INDEX CONCURRENTLY i ON a (x);",
        "-- +migrate Up notransaction\nCREATE INDEX CONCURRENTLY i ON a (x);",
    ],
)
def test_a_half_without_a_transaction(tmp_path: Path, text: str) -> None:
    assert [piece.outside_transaction for piece in one(tmp_path, text).pieces] == [True]


def test_of_a_pair_the_way_up_is_taken_under_the_name_of_both(tmp_path: Path) -> None:
    for number, word in ((1, "init"), (2, "more")):
        (tmp_path / f"00000{number}_{word}.up.sql").write_text("SELECT 1")
        (tmp_path / f"00000{number}_{word}.down.sql").write_text("SELECT 2")
    found = discover(tmp_path)
    assert [(m.name, m.version, m.tool) for m in found] == [
        ("000001_init", "000001", "up/down pairs"),
        ("000002_more", "000002", "up/down pairs"),
    ]
    assert [statements(m) for m in found] == [["SELECT 1"]] * 2


def test_numbers_of_another_tool_are_in_order_or_refused(tmp_path: Path) -> None:
    for name in ("00001_a.sql", "00002_b.sql", "20260101000000_c.sql"):
        (tmp_path / name).write_text("-- +goose Up\nSELECT 1")
    assert [m.version for m in discover(tmp_path)] == ["00001", "00002", "20260101000000"]
    (tmp_path / "3_d.sql").write_text("-- +goose Up\nSELECT 1")
    with pytest.raises(ConfigError) as caught:
        discover(tmp_path)
    assert caught.value.code == "invalid-migration-file-name"


@pytest.mark.parametrize("name", ["V1__init.sql", "U1.2__init.sql", "R__views.sql"])
def test_flyways_names_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        one(tmp_path, "SELECT 1", name)
    assert "Flyway" in (caught.value.hint or "")
