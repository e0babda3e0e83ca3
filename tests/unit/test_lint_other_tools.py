"""What squawk, strong_migrations, Atlas, eugene and pgroll find, is found, or the page says why not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stackctl.migrate.lint.linter import LintFile, lint_files
from stackctl.migrate.lint.registry import RULES

PAGE = Path(__file__).parents[2] / "docs" / "lint.md"

# What each of squawk's rules finds, as squawk 2.70 has confirmed (with all of its rules, `--assume-in-transaction` for
# nested transactions, and PostgreSQL 19 for prefer-repack).
SQUAWK = {
    "require-concurrent-index-creation": "CREATE INDEX i ON t (a);",
    "require-concurrent-index-deletion": "DROP INDEX i;",
    "constraint-missing-not-valid": "ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0);",
    "adding-field-with-default": "ALTER TABLE t ADD COLUMN b uuid DEFAULT gen_random_uuid();",
    "adding-foreign-key-constraint": "ALTER TABLE t ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES u (id);",
    "changing-column-type": "ALTER TABLE t ALTER COLUMN a TYPE bigint;",
    "adding-not-nullable-field": "ALTER TABLE t ALTER COLUMN a SET NOT NULL;",
    "adding-serial-primary-key-field": "ALTER TABLE t ADD PRIMARY KEY (id);",
    "renaming-column": "ALTER TABLE t RENAME COLUMN a TO b;",
    "renaming-table": "ALTER TABLE t RENAME TO u;",
    "disallowed-unique-constraint": "ALTER TABLE t ADD CONSTRAINT c UNIQUE (a);",
    "ban-drop-database": "DROP DATABASE d;",
    "prefer-bigint-over-int": "CREATE TABLE n (id int PRIMARY KEY);",
    "prefer-bigint-over-smallint": "CREATE TABLE n (id smallint PRIMARY KEY);",
    "prefer-identity": "CREATE TABLE n (id bigserial PRIMARY KEY);",
    "prefer-repack": "VACUUM FULL t;",
    "prefer-robust-stmts": "ALTER TABLE t ADD COLUMN a text;",
    "prefer-text-field": "CREATE TABLE n (a varchar(20));",
    "prefer-timestamp-tz": "CREATE TABLE n (a timestamp);",
    "ban-char-field": "CREATE TABLE n (a char(3));",
    "ban-drop-column": "ALTER TABLE t DROP COLUMN a;",
    "ban-drop-table": "DROP TABLE t;",
    "ban-drop-not-null": "ALTER TABLE t ALTER COLUMN a DROP NOT NULL;",
    "transaction-nesting": "BEGIN; SELECT 1; COMMIT;",
    "adding-required-field": "ALTER TABLE t ADD COLUMN b text NOT NULL;",
    "ban-concurrent-index-creation-in-transaction": "BEGIN; CREATE INDEX CONCURRENTLY i ON t (a); COMMIT;",
    "ban-create-domain-with-constraint": "CREATE DOMAIN d AS int CHECK (VALUE > 0);",
    "ban-alter-domain-with-add-constraint": "ALTER DOMAIN d ADD CONSTRAINT c CHECK (VALUE > 0);",
    "ban-truncate-cascade": "TRUNCATE t CASCADE;",
    "require-timeout-settings": "ALTER TABLE t ADD COLUMN a text;",
    "require-lock-timeout": "ALTER TABLE t ADD COLUMN a text;",
    "require-statement-timeout": "ALTER TABLE t ADD COLUMN a text;",
    "ban-uncommitted-transaction": "BEGIN; SELECT 1;",
    "require-enum-value-ordering": "ALTER TYPE mood ADD VALUE 'new';",
    "require-table-schema": "CREATE TABLE n (a bigint);",
    "identifier-too-long": "CREATE TABLE " + "n" * 70 + " (a bigint);",
    "require-concurrent-partition-detach": "ALTER TABLE t DETACH PARTITION p;",
    "require-concurrent-reindex": "REINDEX TABLE t;",
    "ban-drop-view": "DROP VIEW v;",
    "ban-drop-function": "DROP FUNCTION f(int);",
    "ban-drop-type": "DROP TYPE ty;",
    "ban-drop-schema": "DROP SCHEMA s;",
    "ban-drop-sequence": "DROP SEQUENCE s;",
    "ban-drop-domain": "DROP DOMAIN d;",
    "ban-drop-constraint": "ALTER TABLE t DROP CONSTRAINT c;",
    "ban-drop-default": "ALTER TABLE t ALTER COLUMN a DROP DEFAULT;",
    "ban-drop-trigger": "DROP TRIGGER g ON t;",
    "ban-drop-generated-expression": "ALTER TABLE t ALTER COLUMN a DROP EXPRESSION;",
    "renaming-object": "ALTER TYPE ty RENAME TO tz;",
    "ban-set-schema": "ALTER TABLE t SET SCHEMA s;",
    "ban-alter-identity": "ALTER TABLE t ALTER COLUMN a DROP IDENTITY;",
    "ban-drop-extension": "DROP EXTENSION pgcrypto;",
    "ban-alter-generated-expression": "ALTER TABLE t ALTER COLUMN a SET EXPRESSION AS (b * 2);",
    "ban-drop-index": "DROP INDEX CONCURRENTLY i;",
    "ban-set-default": "ALTER TABLE t ALTER COLUMN a SET DEFAULT 1;",
    "ban-disable-trigger": "ALTER TABLE t DISABLE TRIGGER g;",
    "ban-replica-identity": "ALTER TABLE t REPLICA IDENTITY NOTHING;",
    "ban-drop-policy": "DROP POLICY p ON t;",
    "ban-revoke": "REVOKE SELECT ON t FROM r;",
    "ban-replace-view-function": "CREATE OR REPLACE VIEW v AS SELECT 1;",
    "ban-alter-policy-condition": "ALTER POLICY p ON t USING (a > 0);",
    "ban-alter-policy-roles": "ALTER POLICY p ON t TO r;",
    "ban-create-policy": "CREATE POLICY p ON t AS RESTRICTIVE USING (a > 0);",
    "ban-alter-function-options": "ALTER FUNCTION f(int) STRICT;",
    "ban-alter-view-options": "ALTER VIEW v SET (security_invoker = true);",
    "ban-alter-role-options": "ALTER ROLE r NOLOGIN;",
    "ban-alter-database-options": "ALTER DATABASE d SET search_path = s;",
    "ban-alter-row-level-security": "ALTER TABLE t ENABLE ROW LEVEL SECURITY;",
    "ban-new-write-restriction": "ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0) NOT VALID;",
    "ban-add-enum-value": "ALTER TYPE mood ADD VALUE 'new';",
    "ban-add-composite-attribute": "ALTER TYPE ty ADD ATTRIBUTE a int;",
    "ban-add-column": "ALTER TABLE t ADD COLUMN a text;",
    "ban-detach-inheritance": "ALTER TABLE t NO INHERIT p;",
    "ban-alter-sequence-values": "ALTER SEQUENCE s INCREMENT BY 10;",
    "ban-alter-system-options": "ALTER SYSTEM SET work_mem = '1GB';",
    "ban-alter-extension": "ALTER EXTENSION hstore UPDATE TO '2.0';",
    "ban-duplicate-column-assignments": "UPDATE t SET a = 1, a = 2 WHERE id = 1;",
}

ROW = re.compile(r"\| (.+?) \| (.+) \|")


def read_tables() -> dict[str, dict[str, str]]:
    """By tool: their rules, and the cell that says what finds it here."""
    tables: dict[str, dict[str, str]] = {}
    page = PAGE.read_text(encoding="utf-8").partition("## What other tools find")[2]
    for section in re.split(r"^### ", page, flags=re.MULTILINE)[1:]:
        rows = [(match[1], match[2]) for line in section.splitlines() if (match := ROW.fullmatch(line))]
        assert len(rows) > 10
        tables[section.splitlines()[0]] = dict(rows[1:])
    return tables


TABLES = read_tables()
CELLS = [(tool, theirs, ours) for tool, rows in TABLES.items() for theirs, ours in rows.items()]


def lint(directory: Path, text: str) -> set[str]:
    path = directory / "20260101000000_case.sql"
    path.write_text(text, encoding="utf-8")
    return {finding.rule for finding in lint_files([LintFile(path, path.stem)], schema="public")}


@pytest.mark.parametrize(("tool", "theirs", "ours"), CELLS)
def test_each_of_their_rules_has_rules_here_or_a_sentence(tool: str, theirs: str, ours: str) -> None:
    ids = re.findall(r"`([a-z-]+)`", ours)
    if ours.startswith("no: "):
        assert len(ours) > 20, (tool, theirs)
    else:
        assert ids and set(ids) <= set(RULES), (tool, theirs)


def test_all_of_squawk_is_in_the_table() -> None:
    listed = [rule for theirs in TABLES["squawk"] for rule in theirs.split(", ")]
    assert sorted(listed) == sorted([*SQUAWK, "syntax-error", "unused-ignore"])


@pytest.mark.parametrize("rule", SQUAWK)
def test_what_squawk_finds_is_found(rule: str, tmp_path: Path) -> None:
    ours = next(ours for theirs, ours in TABLES["squawk"].items() if rule in theirs.split(", "))
    found = lint(tmp_path, SQUAWK[rule])
    ids = set(re.findall(r"`([a-z-]+)`", ours))
    assert ours.startswith("no: ") or found & ids, found
    assert "not-understood" not in found
