from __future__ import annotations

import sqlite3

import pytest
import sqlglot
from sqlglot import exp

from stackctl.core.bundled import find_bundled
from stackctl.mapping import files
from stackctl.mapping.compile import compile_mapping
from stackctl.mapping.dialect import DIALECTS, Dialect
from stackctl.mapping.sql_text import add_output, drop_fences, find_parameters, to_driver_sql


@pytest.mark.parametrize(
    ("dialect", "upsert"),
    [
        (
            "postgres",
            (
                'INSERT INTO "notification_preferences" ("id", "user_id", "notification_category_id", "enabled")'
                ' SELECT "id", "user_id", "notification_category_id", "enabled"'
                ' FROM "_stack_staging_notification_preferences"'
                ' WHERE NOT _stack_deleted ORDER BY "id" ON CONFLICT ("id")'
                ' DO UPDATE SET "user_id" = excluded."user_id",'
                ' "notification_category_id" = excluded."notification_category_id", "enabled" = excluded."enabled"'
            ),
        ),
        (
            "sqlite",
            (
                'INSERT INTO "notification_preferences" ("id", "user_id", "notification_category_id", "enabled")'
                ' VALUES (?, ?, ?, ?) ON CONFLICT ("id") DO UPDATE SET "user_id" = excluded."user_id",'
                ' "notification_category_id" = excluded."notification_category_id", "enabled" = excluded."enabled"'
            ),
        ),
        (
            "mysql",
            (
                "INSERT INTO `notification_preferences` (`id`, `user_id`, `notification_category_id`, `enabled`)"
                " SELECT `id`, `user_id`, `notification_category_id`, `enabled`"
                " FROM `_stack_staging_notification_preferences`"
                " WHERE NOT _stack_deleted ORDER BY `id` ON DUPLICATE KEY UPDATE `user_id` = VALUES(`user_id`),"
                " `notification_category_id` = VALUES(`notification_category_id`), `enabled` = VALUES(`enabled`)"
            ),
        ),
    ],
)
def test_upsert(dialect: Dialect, upsert: str) -> None:
    mapping = files.load_mappings(find_bundled("mappings")).mappings["notification_preferences"]
    assert compile_mapping(mapping, dialect).upsert == upsert


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_mapping_compiles(dialect: Dialect) -> None:
    for mapping in files.load_mappings(find_bundled("mappings")).mappings.values():
        compiled = compile_mapping(mapping, dialect)
        assert ":tenancy_id" not in compiled.fetch + compiled.load
        assert all(column.name in compiled.create_table for column in mapping.columns)


def test_sqlite_statements_run() -> None:
    database = sqlite3.connect(":memory:")
    for mapping in files.load_mappings(find_bundled("mappings")).mappings.values():
        compiled = compile_mapping(mapping, "sqlite")
        database.execute(compiled.create_table)
        row = tuple(f"{column.name} 1" for column in mapping.columns)
        database.execute(compiled.upsert, row)
        database.execute(compiled.upsert, row)
        assert database.execute(f"SELECT * FROM {mapping.target}").fetchall() == [row]
        database.execute(compiled.delete, [f"{name} 1" for name in mapping.key])
        assert database.execute(f"SELECT count(*) FROM {mapping.target}").fetchone() == (0,)
    database.close()


def test_parameters_are_replaced_by_place() -> None:
    sql = "SELECT ':tenancy_id', '5%', a[1:tenancy_id], x::uuid /* :tenancy_id */ WHERE t = :tenancy_id;\n"
    assert [p.name for p in find_parameters(sql)] == ["tenancy_id"]
    assert to_driver_sql(sql, "P") == (
        "SELECT ':tenancy_id', '5%%', a[1:tenancy_id], x::uuid /* :tenancy_id */ WHERE t = P"
    )


@pytest.mark.parametrize(
    "sql",
    [
        *(mapping.select for mapping in files.load_mappings(find_bundled("mappings")).mappings.values()),
        "SELECT t.array[1:2], x.ARRAY[:2] FROM t",
        "SELECT a[1:2], b[:2], c[1, :n], ARRAY[[:p], [:q, :r]], (ARRAY[:s])[1:2] FROM t",
        "SELECT f(a => :x, VARIADIC ARRAY[:y, :z]), E'\\':q', $$ :q $$, $a$ ' :q $a$, \":q\" -- :q",
        "SELECT x::text, y :: uuid, '{:q}'::jsonb -> 'k', 1 /* /* :q */ :q */ + :last",
    ],
)
def test_parameters_are_what_a_parser_of_postgresql_takes_for_placeholders(sql: str) -> None:
    tree = sqlglot.parse_one(sql, read="postgres")
    placeholders = sorted(node.name for node in tree.find_all(exp.Placeholder))
    assert sorted(parameter.name for parameter in find_parameters(sql)) == placeholders


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("SELECT 1 FROM (SELECT 2 OFFSET 0) AS x", "SELECT 1 FROM (SELECT 2 ) AS x"),
        ("(SELECT 2 offset /* fence */ 0 -- here\n)", "(SELECT 2  -- here\n)"),
        ("(SELECT 2 OFFSET 0 ROWS)", "(SELECT 2 OFFSET 0 ROWS)"),
        ("(SELECT 2 OFFSET 10)", "(SELECT 2 OFFSET 10)"),
        ("(SELECT ' OFFSET 0' , \"OFFSET\" 0)", "(SELECT ' OFFSET 0' , \"OFFSET\" 0)"),
    ],
)
def test_fences_are_dropped_and_nothing_else(text: str, kept: str) -> None:
    assert drop_fences(text) == kept


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ('SELECT a\nFROM "T" AS t', 'SELECT a\n, t."s" AS n\nFROM "T" AS t'),
        (
            'WITH w AS (SELECT 1 FROM x) SELECT a IS DISTINCT FROM t.from, f(b) from "T" "t T"',
            'WITH w AS (SELECT 1 FROM x) SELECT a IS DISTINCT FROM t.from, f(b) , "t T"."s" AS n\nfrom "T" "t T"',
        ),
    ],
)
def test_a_column_is_added_to_what_is_selected(text: str, more: str) -> None:
    assert add_output(text, '"s"', "n") == more
