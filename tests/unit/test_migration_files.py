"""Migration files: names, directives, the splitter, checksums."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from stackctl.core.bundled import find_bundled
from stackctl.core.errors import ConfigError, UsageError
from stackctl.migrate.files import Migration, parse_migration, refuse_empty
from stackctl.migrate.folder import create_file, discover
from tests.growth import LINEAR, growth

if TYPE_CHECKING:
    from pathlib import Path


def one(directory: Path, content: str | bytes) -> Migration:
    (directory / "20260101000000_x.sql").write_bytes(content.encode() if isinstance(content, str) else content)
    (migration,) = discover(directory)
    return migration


def sqls(migration: Migration) -> list[list[str]]:
    return [[statement.sql for statement in piece.statements] for piece in migration.pieces]


def refused(directory: Path, content: str | bytes) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        one(directory, content)
    return caught.value


def test_both_layouts_are_read_in_order_of_name(tmp_path: Path) -> None:
    (tmp_path / "20260102000000_flat.sql").write_text("SELECT 2")
    (tmp_path / "20260101000000_folder").mkdir()
    (tmp_path / "20260101000000_folder" / "migration.sql").write_text("SELECT 1")
    (tmp_path / "migration_lock.toml").write_text('provider = "postgresql"')
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "helpers").mkdir()
    found = discover(tmp_path)
    assert [(m.version, m.name) for m in found] == [
        ("20260101000000", "20260101000000_folder"),
        ("20260102000000", "20260102000000_flat"),
    ]


@pytest.mark.parametrize("name", ["2026_x.sql", "add_users.sql", "20260101000000.sql", "202601010000001_x.sql"])
def test_a_sql_file_with_another_name_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("SELECT 1")
    with pytest.raises(ConfigError) as caught:
        discover(tmp_path)
    assert caught.value.code == "invalid-migration-file-name"
    assert name in caught.value.message


def test_bad_directories_and_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        discover(tmp_path / "nowhere")
    assert caught.value.code == "migrations-dir-missing"

    error = refused(tmp_path, "SELECT 1;\n-- caf\xe9".encode("latin-1"))
    assert (error.code, "x.sql:2:" in error.message) == ("migration-not-utf8", True)
    for empty in ("", "\n \n", "-- only a comment\n/* and another */ ;"):
        with pytest.raises(ConfigError) as caught:
            refuse_empty(one(tmp_path, empty))
        assert caught.value.code == "empty-migration"

    one(tmp_path, "SELECT 1")
    (tmp_path / "20260101000000_y").mkdir()
    (tmp_path / "20260101000000_y" / "migration.sql").write_text("SELECT 1")
    with pytest.raises(ConfigError) as caught:
        discover(tmp_path)
    assert caught.value.code == "duplicate-migration-version"


def test_backend_directives(tmp_path: Path) -> None:
    migration = one(
        tmp_path,
        "CREATE TABLE a (); CREATE TABLE b ();\n"
        "-- SPLIT_STATEMENT_SENTINEL\n"
        "-- SINGLE_STATEMENT_SENTINEL\n-- RUN_OUTSIDE_TRANSACTION_SENTINEL\n"
        'CREATE INDEX CONCURRENTLY i ON /* SCHEMA_NAME_SENTINEL */."a" (x);\n'
        "/* SPLIT_STATEMENT_SENTINEL */\n"
        "-- SINGLE_STATEMENT_SENTINEL\n-- CONDITIONALLY_REPEAT_MIGRATION_SENTINEL\n"
        "SELECT true AS should_repeat_migration\n",
    )
    assert [(p.line, p.outside_transaction, p.single, p.repeat) for p in migration.pieces] == [
        (1, False, False, False),
        (5, True, True, False),
        (9, False, True, True),
    ]
    assert sqls(migration) == [
        ["CREATE TABLE a ()", "CREATE TABLE b ()"],
        ['CREATE INDEX CONCURRENTLY i ON /* SCHEMA_NAME_SENTINEL */."a" (x)'],
        ["SELECT true AS should_repeat_migration"],
    ]


def test_own_directives_and_one_piece_for_each_statement_outside(tmp_path: Path) -> None:
    migration = one(
        tmp_path,
        "SELECT 1;\n-- stackctl:split\n-- stackctl:outside-transaction\nVACUUM a; VACUUM b;\n"
        "--stackctl:split\n-- stackctl:repeat\nSELECT 2;\n-- prose about stackctl:split changes nothing\n",
    )
    assert sqls(migration) == [["SELECT 1"], ["VACUUM a"], ["VACUUM b"], ["SELECT 2"]]
    assert [(p.outside_transaction, p.repeat) for p in migration.pieces] == [
        (False, False),
        (True, False),
        (True, False),
        (False, True),
    ]
    assert (migration.pieces[2].statements[0].line, migration.pieces[2].statements[0].column) == (4, 11)


def test_directives_do_not_count_in_strings_and_bodies(tmp_path: Path) -> None:
    migration = one(
        tmp_path,
        "SELECT '-- SPLIT_STATEMENT_SENTINEL', E'\\'\n-- stackctl:split\n', \"-- RUN_OUTSIDE_TRANSACTION_SENTINEL\";\n"
        "DO $x$ BEGIN\n-- stackctl:split\n-- SINGLE_STATEMENT_SENTINEL\nPERFORM 1; PERFORM $$;$$; END $x$;",
    )
    (piece,) = migration.pieces
    assert (len(piece.statements), piece.outside_transaction, piece.single) == (2, False, False)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("SELECT ';'; SELECT E'\\';'; SELECT 'it''s;'", 3),
        ("SELECT E'a'\n  'b\\';c'; SELECT 1", 2),
        ('SELECT ";" FROM "a"";b"; SELECT 2', 2),
        ("SELECT $$;$$; SELECT $a$ $b$;$b$ ; $a$; SELECT a$1$ ; SELECT $1$", 4),
        ("/* a /* ; */ ; */ SELECT 1; -- ; \n SELECT 2", 2),
        ("CREATE RULE r AS ON INSERT TO a DO ALSO (SELECT 1; SELECT 2); SELECT 3", 2),
        (
            "CREATE OR REPLACE FUNCTION f() BEGIN ATOMIC SELECT CASE WHEN a THEN 1 END; SELECT 2; END; TABLE t",
            2,
        ),
        ("CREATE PROCEDURE p() BEGIN ATOMIC INSERT INTO a VALUES (1); END; SELECT 3", 2),
        ("SELECT '100%', '%s'; SELECT 5 % 2", 2),
        ("\ufeffSELECT 1;\r\n-- c\r\nSELECT 2;\r\n", 2),
        ("SELECT 'кош;ка', '😀;'; SELECT $тег$;$тег$", 2),
        ("SELECT U&'d\\0061t;', B'01', x'1F'; SELECT 1::int", 2),
    ],
)
def test_the_splitter_knows_where_a_statement_ends(tmp_path: Path, text: str, count: int) -> None:
    assert len(one(tmp_path, text).pieces[0].statements) == count


@pytest.mark.parametrize(
    ("text", "line"),
    [("SELECT 1;\nSELECT 'open", 2), ("/* a /* b */", 1), ("\n\nDO $x$ BEGIN $$", 3), ('SELECT "a', 1), ("E'\\'", 1)],
)
def test_what_is_never_closed_is_named_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    error = refused(tmp_path, text)
    assert error.details["line"] == line
    assert f"x.sql:{line}: " in error.message


@pytest.mark.parametrize(
    "statement",
    [
        "BEGIN",
        "commit;",
        "END",
        "ROLLBACK",
        "rollback and chain",
        "START TRANSACTION",
        "ABORT",
        "PREPARE TRANSACTION 'a'",
    ],
)
def test_transaction_control_is_refused(tmp_path: Path, statement: str) -> None:
    error = refused(tmp_path, f"SELECT 1;\n/* x */ {statement}")
    assert (error.code, error.details["line"]) == ("transaction-control", 2)


def test_what_only_looks_like_transaction_control_is_not(tmp_path: Path) -> None:
    one(
        tmp_path,
        "DO $$ BEGIN COMMIT; END $$; SAVEPOINT a; ROLLBACK TO a; ROLLBACK WORK TO SAVEPOINT a; SELECT 'x;\nCOMMIT;';"
        " CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END; PREPARE p AS SELECT 1;",
    )


def test_copy_with_the_client_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, "SELECT 1;\nCOPY a (x) FROM stdin").code == "client-copy"
    one(tmp_path, "COPY a FROM '/stdin'; COPY \"STDIN\" TO PROGRAM 'cat'")


def test_wrong_directives_are_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, "SELECT 1;\n-- stackctl:outside-transactions\n")
    assert (error.code, error.details["line"]) == ("unknown-directive", 2)
    assert "outside-transaction" in (error.hint or "")
    assert refused(tmp_path, "-- stackctl:outside-transaction\n-- stackctl:split\nSELECT 1").details["line"] == 1
    error = refused(tmp_path, "-- stackctl:repeat\nSELECT 1;\nSELECT 2")
    assert error.details["line"] == 3
    one(tmp_path, "-- stackctl:allow drop-column nobody reads it\nSELECT 1")


BASE = "SELECT 1, 'a  b' FROM \"t\";\n-- stackctl:split\n-- stackctl:outside-transaction\nVACUUM t;\n"


@pytest.mark.parametrize(
    "same",
    [
        BASE.replace("\n", "\r\n"),
        "\ufeff-- why\n" + BASE,
        BASE.replace("SELECT 1,", "SELECT\n\t1 /* one */ ,"),
        BASE.replace("t;\n", "t  ;;\n\n"),
    ],
)
def test_the_checksum_is_blind_to_comments_and_spacing(tmp_path: Path, same: str) -> None:
    assert one(tmp_path, same).checksum == one(tmp_path, BASE).checksum


@pytest.mark.parametrize(
    "different",
    [
        BASE.replace("1", "2"),
        BASE.replace("a  b", "a b"),
        BASE.replace('"t"', '"T"'),
        BASE.replace("-- stackctl:outside-transaction\n", ""),
        BASE.replace("-- stackctl:outside-transaction", "-- stackctl:outside-transaction\n-- stackctl:repeat"),
        BASE.replace("VACUUM t", "VACUUM /* SCHEMA_NAME_SENTINEL */.t"),
        BASE.replace("1,", "1;"),
    ],
)
def test_the_checksum_sees_every_other_edit(tmp_path: Path, different: str) -> None:
    assert one(tmp_path, different).checksum != one(tmp_path, BASE).checksum


def test_new_writes_a_file_above_every_other(tmp_path: Path) -> None:
    now = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    first = create_file(tmp_path / "m", "Add team-slug!", now)
    assert first.name == "20260304050607_add_team_slug.sql"
    second = create_file(tmp_path / "m", "again", now)
    assert second.name == "20260304050608_again.sql"
    assert [m.pieces for m in discover(tmp_path / "m")] == [(), ()]
    for path in (first, second):
        path.write_text(path.read_text() + "SELECT 1;\n")
    plan = discover(tmp_path / "m")
    # The template explains the directives and uses none.
    assert [(len(m.pieces), m.pieces[0].outside_transaction, m.pieces[0].repeat) for m in plan] == [
        (1, False, False)
    ] * 2


def test_new_after_a_version_that_is_no_date(tmp_path: Path) -> None:
    (tmp_path / "99990000000000_x.sql").write_text("SELECT 1")
    assert create_file(tmp_path, "y", datetime(2026, 1, 1, tzinfo=UTC)).name == "99990000000001_y.sql"


@pytest.mark.parametrize("name", ["", "  ", "///", "😀", "a" * 101])
def test_new_refuses_what_is_no_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        create_file(tmp_path, name, datetime(2026, 1, 1, tzinfo=UTC))
    assert caught.value.code == "invalid-migration-name"
    assert list(tmp_path.iterdir()) == []


def test_the_bundled_set_is_readable() -> None:
    assert [m.name[15:] for m in discover(find_bundled("migrations"))][:2] == ["enums", "tables"]


@pytest.mark.parametrize("layout", ["{}.sql", "{}/migration.sql"])
def test_a_file_with_a_nul_byte_is_refused_whole(tmp_path: Path, layout: str) -> None:
    path = tmp_path / layout.format("20260101000000_a")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"CREATE TABLE a ();\n-- fine\0\nDROP TABLE a")
    with pytest.raises(ConfigError) as caught:
        discover(tmp_path)
    assert caught.value.message == f"{path}:2: a NUL byte"


def test_what_pg_dump_writes_for_psql_is_passed_over(tmp_path: Path) -> None:
    dump = "\\restrict aX9\n\nCREATE TABLE a (x int);\n\\unrestrict aX9\nCREATE TABLE b ();\n"
    migration = one(tmp_path, dump)
    assert [(s.sql, s.line) for piece in migration.pieces for s in piece.statements] == [
        ("CREATE TABLE a (x int)", 3),
        ("CREATE TABLE b ()", 5),
    ]
    assert "restrict" not in migration.pieces[0].sql


@pytest.mark.parametrize("line", ["\\connect other", "\\i more.sql", "\\copy a FROM 'x'", "\\.", "SELECT 1 \\gexec"])
def test_another_line_for_psql_is_refused_as_such(tmp_path: Path, line: str) -> None:
    error = refused(tmp_path, f"SELECT 1;\n{line}\nSELECT 2")
    command = line[line.index("\\") :].split()[0]
    assert (error.code, error.details["line"]) == ("psql-command", 2)
    assert f"{command} is a command of psql" in error.message


@pytest.mark.parametrize(
    "line",
    [
        "INSERT INTO t VALUES ({n}, 'it''s {n}', now());\n",
        "INSERT INTO t VALUES ({n}, $$a$$); -- {n}\n",
        "\\connect db{n}\n",
        "-- stackctl:split\nSELECT {n};\n",
    ],
)
def test_reading_takes_as_long_as_the_file_is(tmp_path: Path, line: str) -> None:
    def read(count: int) -> None:
        text = "SELECT 1;\n" + "".join(line.format(n=number) for number in range(count))
        parse_migration(text, tmp_path / "x.sql", "1_x", [])

    assert growth(read, 1000) < LINEAR
