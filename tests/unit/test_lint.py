"""Lint of whole files and folders: places, comments that let findings pass, what earlier files made certain."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stackctl.core.bundled import find_bundled
from stackctl.migrate.lint.file_selection import select_files
from stackctl.migrate.lint.findings import LintFinding, has_failures
from stackctl.migrate.lint.linter import LintFile, lint_files
from stackctl.migrate.lint.registry import RULES
from stackctl.migrate.parser import queries
from tests.growth import LINEAR, growth

DATA = Path(__file__).parents[1] / "data"
DOCS = Path(__file__).parents[2] / "docs" / "lint.md"
SPLIT = "\n-- stackctl:split\n"
OUTSIDE = "-- stackctl:outside-transaction\n"


def run(directory: Path, *texts: str, schema: str = "public", server_version: int | None = None) -> list[LintFinding]:
    """The findings in the last of these files, which follow each other in a folder."""
    listed: list[LintFile] = []
    for number, text in enumerate(texts):
        path = directory / f"2026010100000{number}_case.sql"
        path.write_text(text, encoding="utf-8")
        listed.append(LintFile(path, path.stem, report=number == len(texts) - 1))
    return lint_files(listed, schema=schema, server_version=server_version)


def rules(directory: Path, *texts: str, schema: str = "public") -> list[str]:
    return [finding.rule for finding in run(directory, *texts, schema=schema)]


def test_a_file_that_breaks_every_rule_is_found_out_line_by_line() -> None:
    path = DATA / "breaks_every_rule.sql"
    expected = [
        (number, rule)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (match := re.search(r"-- finds: (.*)", line))
        for rule in match[1].split(", ")
    ]
    # A comment behind the comment would be its reason.
    expected.append((len(path.read_text(encoding="utf-8").splitlines()) - 1, "allow-without-reason"))
    found = lint_files([LintFile(path, path.stem)], schema="public")
    assert sorted((f.line, f.rule) for f in found) == sorted(expected)
    assert {f.rule for f in found} == set(RULES) - {"syntax-error"}


def test_the_bundled_set_is_clean() -> None:
    (folder,) = select_files([find_bundled("migrations")])
    assert len(folder) > 5
    assert lint_files(folder, schema="public") == []


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("CREATE TABLE a (x int8);\n\n  DROP TABLE t;", 3, 14),
        ("ALTER TABLE t\n  ADD COLUMN b text,\n  DROP COLUMN a;", 3, 3),
        ("DO $x$\nBEGIN\n  IF true THEN\n    DROP TABLE t;\n  END IF;\nEND $x$", 4, 16),
        ("\ufeffDROP TABLE t", 1, 12),
        ("SELECT 1;\r\nDROP TABLE t;\r\n", 2, 12),
        ("SELECT 'ä'; DROP TABLE ü", 1, 24),
        ("DO $$ BEGIN\n EXECUTE 'SELECT 1;\n\nDROP TABLE t'; END $$", 2, 2),
        ("DO 'BEGIN DROP TABLE \"it''s\"; END'", 1, 4),
    ],
)
def test_a_finding_points_at_its_object(text: str, line: int, column: int, tmp_path: Path) -> None:
    (finding,) = run(tmp_path, text)
    assert (finding.line, finding.column) == (line, column)


# -- comments


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("-- stackctl:allow drop-table gone since v2\nDROP TABLE t", []),
        ("DROP TABLE t; -- stackctl:allow drop-table gone since v2\nDROP TABLE u", ["drop-table"]),
        ("DROP TABLE t;\n-- stackctl:allow drop-table gone since v2\nDROP TABLE u", ["drop-table"]),
        ("DROP TABLE\n-- stackctl:allow drop-table gone since v2\nt", []),
        ("-- stackctl:allow drop-table both are gone\nDROP TABLE t, u", []),
        ("-- stackctl:allow drop-table gone\nDROP TABLE t; DROP TABLE u", ["drop-table"]),
        ("-- stackctl:allow drop-table\nDROP TABLE t", ["allow-without-reason"]),
        ("-- stackctl:allow drop-table it is\nSELECT 1", ["allow-unused"]),
        ("DROP TABLE t;\n-- stackctl:allow drop-table nothing follows", ["drop-table", "allow-unused"]),
        ("-- stackctl:allow\nDROP TABLE t", ["allow-unknown-rule", "drop-table"]),
        ("-- stackctl:allow drop-tables it is\nDROP TABLE t", ["allow-unknown-rule", "drop-table"]),
        ("-- stackctl:allow drop-table a\n-- stackctl:allow drop-view b\nDROP TABLE t; DROP VIEW v",
         ["allow-unused", "drop-view"]),
        ("DO $$ BEGIN\n-- stackctl:allow drop-table a\nDROP TABLE t; END $$", ["drop-table"]),
        ("-- stackctl:allow drop-table a\nDO $$ BEGIN DROP TABLE t; DROP TABLE u; END $$", []),
        ("SELECT '-- stackctl:allow drop-table a';\nDROP TABLE t", ["drop-table"]),
        ("-- stackctl:allow drop-table a" + SPLIT + "DROP TABLE t", []),
    ],
)  # fmt: skip
def test_a_comment_lets_one_rule_pass_for_one_statement(text: str, left: list[str], tmp_path: Path) -> None:
    assert rules(tmp_path, text) == left


def test_an_unknown_rule_is_answered_with_the_nearest(tmp_path: Path) -> None:
    first = run(tmp_path, "-- stackctl:allow index-concurrently small table\nCREATE INDEX i ON t (a)")[0]
    assert first.suggestion == "-- stackctl:allow index-not-concurrent small table"


def test_advice_is_given_once_a_file_and_its_comment_holds_for_the_file(tmp_path: Path) -> None:
    text = "CREATE TABLE a (x json, y json);\nCREATE TABLE b (x json);"
    (finding,) = run(tmp_path, text)
    assert (finding.rule, finding.line) == ("json-type", 1)
    assert "and 2 more in this file" in finding.message
    assert not has_failures([finding])
    assert run(tmp_path, text + "\n-- stackctl:allow json-type the order of its keys matters\nSELECT 1") == []


# -- what the file itself made, and what earlier files made certain


@pytest.mark.parametrize(
    ("schema", "text", "found"),
    [
        ("app", "CREATE TABLE t (a text); CREATE INDEX ON app.t (a)", False),
        ("app", "CREATE TABLE t (a text); CREATE INDEX ON public.t (a)", True),
        ("public", 'CREATE TABLE "User" (a text); CREATE INDEX ON "User" (a)', False),
        ("public", 'CREATE TABLE "User" (a text); CREATE INDEX ON "user" (a)', True),
        ("public", "CREATE TABLE Foo (a text); CREATE INDEX ON \"foo\" (a)", False),
        ("public", 'CREATE TABLE "a""b" (a text); CREATE INDEX ON public."a""b" (a)', False),
        ("public", 'CREATE TABLE "a.b" (a text); CREATE INDEX ON a.b (a)', True),
        ("public", "CREATE TABLE t (a text); DROP TABLE t; CREATE INDEX ON t (a)", True),
        ("App", 'CREATE TABLE /* SCHEMA_NAME_SENTINEL */."t" (a text); CREATE INDEX ON "App".t (a)', False),
        ("App", 'CREATE TABLE /* SCHEMA_NAME_SENTINEL */."t" (a text); CREATE INDEX ON app.t (a)', True),
        ("public", "CREATE TABLE t (a text); ALTER TABLE t RENAME TO u; CREATE INDEX ON t (a)", True),
        ("public", "DO $$ BEGIN CREATE TABLE t (a text); END $$; CREATE INDEX ON t (a)", False),
        ("public", "CREATE TABLE t (a text)" + SPLIT + "CREATE INDEX ON t (a)", False),
    ],
)  # fmt: skip
def test_only_what_the_file_made_is_exempt(schema: str, text: str, found: bool, tmp_path: Path) -> None:
    assert ("index-not-concurrent" in rules(tmp_path, text, schema=schema)) is found


def test_what_an_earlier_file_made_is_not_exempt(tmp_path: Path) -> None:
    assert rules(tmp_path, "CREATE TABLE t (a text)", "CREATE INDEX ON t (a)") == ["index-not-concurrent"]


CHECK = "ALTER TABLE t ADD CONSTRAINT c CHECK (a IS NOT NULL) NOT VALID"
VALIDATE = OUTSIDE + "ALTER TABLE t VALIDATE CONSTRAINT c"
SET = "ALTER TABLE t ALTER a SET NOT NULL"


@pytest.mark.parametrize(
    ("texts", "left"),
    [
        ((CHECK, VALIDATE, SET), []),
        ((CHECK, SET), ["set-not-null"]),
        ((VALIDATE, SET), ["set-not-null"]),
        ((CHECK, "ALTER TABLE u VALIDATE CONSTRAINT c", SET), ["set-not-null"]),
        ((CHECK, VALIDATE, SET + "; ALTER TABLE t DROP CONSTRAINT c"), []),
        ((CHECK, VALIDATE, SET, "ALTER TABLE t DROP CONSTRAINT c"), []),
        ((CHECK, VALIDATE, "ALTER TABLE t DROP CONSTRAINT c; " + SET), ["drop-constraint", "set-not-null"]),
        ((CHECK.replace("a IS NOT NULL", "a IS NOT NULL OR b"), VALIDATE, SET), ["set-not-null"]),
        ((CHECK.replace("a IS NOT NULL", "b AND (a IS NOT NULL)"), VALIDATE, SET), []),
        ((CHECK.replace("(a IS NOT NULL)", "((a IS NOT NULL) = b)"), VALIDATE, SET), ["set-not-null"]),
        ((CHECK.replace("a IS", "A IS"), VALIDATE, SET.replace(" a ", ' "A" ')), ["set-not-null"]),
        ((CHECK + " ; " + VALIDATE.removeprefix(OUTSIDE), SET), []),
        (("CREATE TABLE t (a text, CHECK (a IS NOT NULL))", SET), []),
        ((CHECK, VALIDATE, "DROP TABLE t", SET), ["set-not-null"]),
        (("SELECT 'unclosed", CHECK, VALIDATE, SET), []),
        (("CREATE TABLE t (a text NOT NULL)", SET), []),
        (("CREATE TABLE t (a text NOT NULL)", "ALTER TABLE t ALTER a DROP NOT NULL", SET), ["set-not-null"]),
        ((CHECK, VALIDATE, "ALTER TABLE t DROP a, ADD a text", SET), ["set-not-null"]),
        ((CHECK, VALIDATE, "ALTER TABLE t RENAME a TO b; ALTER TABLE t ADD a text", SET), ["set-not-null"]),
        ((CHECK, VALIDATE, "ALTER TABLE t RENAME TO u; CREATE TABLE t (a text)", SET), ["set-not-null"]),
    ],
)
def test_earlier_files_make_set_not_null_safe(texts: tuple[str, ...], left: list[str], tmp_path: Path) -> None:
    assert rules(tmp_path, *texts) == left


def test_pieces_apart_share_a_transaction_unless_one_is_outside(tmp_path: Path) -> None:
    add = "ALTER TYPE mood ADD VALUE 'new'"
    use = "UPDATE t SET mood = 'new' WHERE id = 1"
    assert rules(tmp_path, add + SPLIT + use) == ["enum-value-used"]
    assert rules(tmp_path, OUTSIDE + add + SPLIT + use) == []
    assert rules(tmp_path, add + SPLIT + OUTSIDE + "VACUUM t" + SPLIT + use) == []
    assert rules(tmp_path, add, use) == []


# -- files that can't be read


@pytest.mark.parametrize(
    ("content", "line", "says"),
    [
        (b"SELECT 1;\nSELECT '\xff'", 2, "not UTF-8"),
        (b"SELECT 1;\n\nSELECT 'open", 3, "never closed"),
        (b"-- nothing\n", 1, "no SQL statement"),
        (b"SELECT 1;\n-- stackctl:splitt\nSELECT 2", 2, "no directive"),
        (b"SELECT 1;\nCOPY t FROM STDIN;", 2, "COPY"),
    ],
)
def test_a_file_that_up_would_not_read_is_a_finding(content: bytes, line: int, says: str, tmp_path: Path) -> None:
    path = tmp_path / "20260101000000_bad.sql"
    path.write_bytes(content)
    (finding,) = lint_files([LintFile(path, path.stem)], schema="public")
    assert (finding.rule, finding.line) == ("unreadable-file", line)
    assert says in finding.what


def test_a_folder_out_of_order_is_a_finding(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"20260101000000_{name}.sql").write_text("SELECT 1", encoding="utf-8")
    (folder,) = select_files([tmp_path])
    (finding,) = lint_files(folder, schema="public")
    assert finding.rule == "unreadable-file"
    assert "the same version" in finding.what


def test_the_table_in_the_documentation_is_the_code() -> None:
    rows = [f"| `{rule.id}` | {rule.severity} | {rule.title} | {rule.why} |" for rule in RULES.values()]
    documented = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert documented == rows


# -- versions of the server

CHECKED = "ALTER TABLE t ADD CONSTRAINT c CHECK (a IS NOT NULL) NOT VALID;" + SPLIT + OUTSIDE
CHECKED += "ALTER TABLE t VALIDATE CONSTRAINT c;" + SPLIT + "ALTER TABLE t ALTER a SET NOT NULL"


@pytest.mark.parametrize(
    ("rule", "text", "since"),
    [
        ("volatile-default", "ALTER TABLE t ADD COLUMN b int DEFAULT 1", 11),
        ("volatile-default", "ALTER TABLE t ADD COLUMN b int DEFAULT now()", 11),
        ("set-not-null", CHECKED, 12),
        ("cannot-run-in-transaction", "ALTER TYPE m ADD VALUE 'b'", 12),
        ("attach-reads-partition", "CREATE TABLE p (a int); ALTER TABLE t ATTACH PARTITION p FOR VALUES IN (1)", 12),
    ],
)
def test_a_hazard_is_named_up_to_the_version_that_ended_it(rule: str, text: str, since: int, tmp_path: Path) -> None:
    found = {
        version: rule in [finding.rule for finding in run(tmp_path, text, server_version=version)]
        for version in (since - 1, since, None)
    }
    assert found == {since - 1: True, since: False, None: False}


@pytest.mark.parametrize(
    ("rule", "text", "since", "advice"),
    [
        ("set-not-null", "ALTER TABLE t ALTER a SET NOT NULL", 12, "ALTER a SET NOT NULL"),
        ("reindex-not-concurrent", "REINDEX TABLE t", 12, "REINDEX TABLE CONCURRENTLY t"),
        ("partition-locks-parent", "CREATE TABLE p PARTITION OF t FOR VALUES IN (1)", 12, "ATTACH PARTITION p"),
        ("detach-not-concurrent", "ALTER TABLE t DETACH PARTITION p", 14, "DETACH PARTITION p CONCURRENTLY"),
    ],
)
def test_a_server_is_advised_what_it_knows(rule: str, text: str, since: int, advice: str, tmp_path: Path) -> None:
    def advised(version: int | None) -> bool:
        found = next(finding for finding in run(tmp_path, text, server_version=version) if finding.rule == rule)
        return advice.replace("ALTER a", "ALTER COLUMN a") in found.suggestion

    assert (advised(since - 1), advised(since), advised(None)) == (False, True, True)


@pytest.mark.parametrize(
    ("rule", "text", "advice"),
    [
        ("set-not-null", "ALTER TABLE t ALTER a SET NOT NULL", "ADD CONSTRAINT t_a_not_null NOT NULL a NOT VALID"),
        (
            "foreign-key-not-valid-missing",
            "CREATE TABLE p (a int) PARTITION BY LIST (a);|ALTER TABLE p ADD FOREIGN KEY (a) REFERENCES t",
            "NOT VALID;",
        ),
    ],
)
def test_what_is_new_is_advised_where_the_version_is_named(rule: str, text: str, advice: str, tmp_path: Path) -> None:
    def advised(version: int | None) -> bool:
        found = run(tmp_path, *text.split("|"), server_version=version)
        return advice in next(finding for finding in found if finding.rule == rule).suggestion

    assert (advised(17), advised(18), advised(None)) == (False, True, False)


# -- how long it takes


@pytest.mark.parametrize(
    "line",
    [
        "INSERT INTO t VALUES ({n}, 'it''s {n}');\n",
        "ALTER TABLE t{n} ADD CONSTRAINT c CHECK (a IS NOT NULL) NOT VALID;\n",
        "-- stackctl:allow drop-table of test {n}\nDROP TABLE t{n};\n",
        "SELECT 1; -- stackctl:allow drop-table of test {n}\n",
    ],
)
def test_reading_takes_as_long_as_the_file_is(tmp_path: Path, line: str) -> None:
    path = tmp_path / "20260101000000_x.sql"

    def lint(count: int) -> None:
        path.write_text("".join(line.format(n=number) for number in range(count)))
        lint_files([LintFile(path, path.stem)], schema="public")

    lint(1)
    assert growth(lint, 100) < LINEAR


def test_queries_of_one_shape_are_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    parse = queries.parse_query
    monkeypatch.setattr(queries, "parse_query", lambda text, schema: parsed.append(text) or parse(text, schema))
    rows = ["(1, 'a', E'it\\'s')", "(2.5, '(b', NULL)", "(3, '); DELETE FROM t;', $$c$$)"]
    text = "".join(f"INSERT INTO one_shape VALUES {', '.join(rows[:n])};\n" for n in (1, 1, 2, 2, 3, 3))
    found = run(tmp_path, text + "DELETE FROM t;\nINSERT INTO t VALUES (1) 2;\nWITH a AS (DELETE FROM t) SELECT 1;")
    assert [(f.line, f.rule) for f in found] == [
        (7, "whole-table-at-once"), (8, "not-understood"), (9, "whole-table-at-once")
    ]  # fmt: skip
    assert len([one for one in parsed if "one_shape" in one]) == 3


def test_what_psql_reads_hides_nothing_from_comments(tmp_path: Path) -> None:
    text = "\\restrict it's\n-- stackctl:allow drop-table of a test\nDROP TABLE t;\n"
    assert run(tmp_path, text) == []
