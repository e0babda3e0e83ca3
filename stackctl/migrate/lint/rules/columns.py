"""Rules about columns that are added, or get another type or NOT NULL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackctl.migrate.lint.registry import RuleMatch, rule
from stackctl.migrate.lint.wording import (
    OUTSIDE,
    READS_ALL,
    REWRITES,
    SPLIT,
    suggest_allow,
    suggest_backfill,
    suggest_later_release,
)
from stackctl.migrate.parser import volatility
from stackctl.migrate.parser.facts import (
    ColumnAdded,
    ColumnGenerated,
    GenerationDropped,
    NotNullDropped,
    NotNullSet,
    TypeChanged,
)

if TYPE_CHECKING:
    from stackctl.migrate.lint.schema_state import FileState


@rule("not-null-without-default", "error", "a column is added NOT NULL without a default",
      why="it fails if the table has rows, and the previous version of the application can insert none any more",
      fact=ColumnAdded)  # fmt: skip
def not_null_without_default(fact: ColumnAdded, state: FileState) -> RuleMatch | None:
    column = fact.column
    if not column.not_null or column.filled or state.has_created("table", fact.table):
        return None
    return RuleMatch(
        f"column {column.shown} of {fact.table} is NOT NULL and has no default",
        f"ALTER TABLE {fact.table} ADD COLUMN {column.shown} {column.type.text};\n"
        "-- or NOT NULL with a DEFAULT. Without one: let the application write it, fill the rows that are there in\n"
        "-- batches (stackctl:repeat), and set NOT NULL in a later file, after a validated check",
    )


@rule("set-not-null", "error", "NOT NULL is set without a validated check", why=READS_ALL, fact=NotNullSet,
      by_size=True)  # fmt: skip
def set_not_null(fact: NotNullSet, state: FileState) -> RuleMatch | None:
    table, column = fact.table, fact.column
    if state.has_created("table", table) or state.has_created("type", table):
        return None
    checked = state.schema.is_never_null(table, column)
    # Before 12, the rows are read whatever a check says.
    if not state.schema.is_older_than(12) and (
        checked or (state.database and state.database.is_never_null(table, column))
    ):
        return None
    if column == "VALUE":
        safe = suggest_allow("set-not-null", "few rows use it: …", fact.text)
        return RuleMatch(
            f"domain {table} becomes NOT NULL", f"-- stackctl:allow type-changed no released version minds: …\n{safe}"
        )
    shown, check = table.sibling(column).shown, table.sibling(f"{table.name}_{column}_check").shown
    what = f"column {shown} of {table} becomes NOT NULL"
    validate = f"{OUTSIDE}ALTER TABLE {table} VALIDATE CONSTRAINT {check};"
    if state.schema.is_known_to_have(18):
        check = table.sibling(f"{table.name}_{column}_not_null").shown
        validate = f"{OUTSIDE}ALTER TABLE {table} VALIDATE CONSTRAINT {check};"
        return RuleMatch(
            what, f"ALTER TABLE {table} ADD CONSTRAINT {check} NOT NULL {shown} NOT VALID;\n{validate}", table
        )
    add = f"ALTER TABLE {table} ADD CONSTRAINT {check} CHECK ({shown} IS NOT NULL) NOT VALID;\n"
    if state.schema.is_older_than(12):
        return RuleMatch(what, f"{add}{validate}  -- and leave it at that", table)
    return RuleMatch(
        what,
        f"{add}{validate}\n{SPLIT}ALTER TABLE {table} ALTER COLUMN {shown} SET NOT NULL;\n"
        f"ALTER TABLE {table} DROP CONSTRAINT {check};",
        table,
    )


@rule("generated-column-added", "error", "a stored generated column is added", why=REWRITES, fact=ColumnAdded,
      by_size=True)  # fmt: skip
def generated_column_added(fact: ColumnAdded, state: FileState) -> RuleMatch | None:
    column = fact.column
    if not column.stored or state.has_created("table", fact.table):
        return None
    return RuleMatch(
        f"column {column.shown} of {fact.table} is generated and stored",
        f"ALTER TABLE {fact.table} ADD COLUMN IF NOT EXISTS {column.shown} {column.type.text};\n"
        "-- keep it up to date with a trigger, and fill the rows that are there in batches (stackctl:repeat)",
        fact.table,
    )


@rule("volatile-default", "error", "a column is added with a volatile default", why=REWRITES, fact=ColumnAdded,
      by_size=True)  # fmt: skip
def volatile_default(fact: ColumnAdded, state: FileState) -> RuleMatch | None:
    return _default(fact, state, volatile=True)


@rule("default-not-known", "warning", "a column is added with a default whose function is not known",
      why="if the function is volatile, the whole table is rewritten while everything else on it waits; "
      "--ask-database finds out",
      fact=ColumnAdded, by_size=True)  # fmt: skip
def default_not_known(fact: ColumnAdded, state: FileState) -> RuleMatch | None:
    return _default(fact, state, volatile=None)


def _default(fact: ColumnAdded, state: FileState, *, volatile: bool | None) -> RuleMatch | None:
    column = fact.column
    if column.default is None or column.stored or state.has_created("table", fact.table):
        return None
    call, is_volatile = volatility.find_most_volatile(column.calls, state.database and state.database.is_volatile)
    shown = f"{call}()"
    if state.schema.is_older_than(11) and column.default.upper() != "NULL":
        shown, is_volatile = f"{column.default}, which PostgreSQL before 11 writes into each row", True
    if is_volatile is not volatile:
        return None
    table, name = fact.table, column.shown
    safe = (
        f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {name} {column.type.text};\n"
        f"ALTER TABLE {table} ALTER COLUMN {name} SET DEFAULT {column.default};\n"
        + suggest_backfill(table, f"{name} = {column.default}", f"{name} IS NULL")
    )
    return RuleMatch(f"column {name} of {table} has the default {shown}", safe, table)


@rule("domain-column-added", "error", "a column is added whose domain has a check, NOT NULL or a volatile default",
      why=REWRITES + "; it does not matter that the column is null", fact=ColumnAdded, by_size=True)  # fmt: skip
def domain_column_added(fact: ColumnAdded, state: FileState) -> RuleMatch | None:
    column, table = fact.column, fact.table
    if state.has_created("table", table) or not state.is_strict_domain(column.type):
        return None
    if column.default is not None and volatility.find_most_volatile(column.calls)[1]:
        return None  # that is volatile-default
    check = table.sibling(f"{table.name}_{column.name}_check").shown
    return RuleMatch(
        f"column {column.shown} of {table} is of domain {column.type.text}",
        f"ALTER TABLE {table} ADD COLUMN {column.shown} int;  -- the type that the domain is made of\n"
        f"ALTER TABLE {table} ADD CONSTRAINT {check} CHECK (…) NOT VALID;  -- what the domain asks\n"
        f"{OUTSIDE}ALTER TABLE {table} VALIDATE CONSTRAINT {check};",
        table,
    )


@rule("drop-not-null", "warning", "NOT NULL is taken from a column",
      why="the previous version of the application reads the column without expecting NULL, and fails on the first one "
      "that the new version writes", fact=NotNullDropped)  # fmt: skip
def drop_not_null(fact: NotNullDropped, state: FileState) -> RuleMatch | None:
    if state.has_added_column(fact.table, fact.column) or not state.is_live(fact.table):
        return None
    column = fact.table.sibling(fact.column).shown
    reason = "every released version reads NULL there: …"
    return suggest_later_release("drop-not-null", f"column {column} of {fact.table} may be null", fact.text, reason)


@rule("column-generated", "warning", "a column becomes GENERATED ALWAYS",
      why="what the previous version writes to it is refused", fact=ColumnGenerated)  # fmt: skip
def column_generated(fact: ColumnGenerated, state: FileState) -> RuleMatch | None:
    if state.has_added_column(fact.table, fact.column):
        return None
    column = fact.table.sibling(fact.column).shown
    return RuleMatch(
        f"column {column} of {fact.table} is always generated",
        f"ALTER TABLE {fact.table} ALTER COLUMN {column} ADD GENERATED BY DEFAULT AS IDENTITY;",
    )


@rule("drop-generated", "warning", "a column's identity or its generation expression is dropped",
      why="the previous version leaves the column out, and such rows are refused, or get NULL",
      fact=GenerationDropped)  # fmt: skip
def drop_generated(fact: GenerationDropped, state: FileState) -> RuleMatch | None:
    if state.has_added_column(fact.table, fact.column) or not state.is_live(fact.table):
        return None
    column = fact.table.sibling(fact.column).shown
    reason = "every released version writes it: …"
    return suggest_later_release("drop-generated", f"{fact.how} of {column} of {fact.table}", fact.text, reason)


@rule("serial-added", "error", "a serial or identity column is added", why=REWRITES, fact=ColumnAdded, by_size=True)
def serial_added(fact: ColumnAdded, state: FileState) -> RuleMatch | None:
    column, table = fact.column, fact.table
    if not (column.serial or column.identity) or state.has_created("table", table):
        return None
    sequence = table.sibling(f"{table.name}_{column.name}_seq").shown
    return RuleMatch(
        f"column {column.shown} of {table} numbers the rows",
        f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {column.shown} bigint;\n"
        f"CREATE SEQUENCE IF NOT EXISTS {sequence} OWNED BY {table}.{column.shown};\n"
        f"ALTER TABLE {table} ALTER COLUMN {column.shown} SET DEFAULT nextval('{sequence}');\n"
        + suggest_backfill(table, f"{column.shown} = nextval('{sequence}')", f"{column.shown} IS NULL"),
        table,
    )


@rule("column-type-change", "error", "a column's type is changed",
      why="as a rule the whole table is rewritten while everything else on it waits, "
      "and the previous version of the application reads values of another type",
      fact=TypeChanged, by_size=True)  # fmt: skip
def column_type_change(fact: TypeChanged, state: FileState) -> RuleMatch | None:
    if state.has_created("table", fact.table) or state.has_created("type", fact.table):
        return None
    if state.database and fact.using is None and state.database.is_stored_alike(fact.table, fact.column, fact.type):
        return None
    new = fact.table.sibling(f"{fact.column}_new").shown
    old = fact.table.sibling(fact.column).shown
    value = fact.using or f"{old}::{fact.type.text}"
    return RuleMatch(
        f"column {old} of {fact.table} becomes {fact.type.text}",
        f"ALTER TABLE {fact.table} ADD COLUMN IF NOT EXISTS {new} {fact.type.text};\n"
        "-- let the application write both columns, and fill the rows that are there:\n"
        f"{suggest_backfill(fact.table, f'{new} = {value}', f'{new} IS DISTINCT FROM ({value})')}\n"
        "-- then let it read the new one; drop the old one in a later file",
        fact.table,
    )
