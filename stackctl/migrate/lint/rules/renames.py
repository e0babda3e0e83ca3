"""Rules about what is renamed while the previous version of the application still uses the old name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackctl.migrate.lint.registry import Found, rule
from stackctl.migrate.lint.wording import STILL_USES, suggest_later_release
from stackctl.migrate.parser.facts import ColumnRenamed, EnumValueRenamed, Renamed

if TYPE_CHECKING:
    from stackctl.migrate.lint.schema_state import Seen


@rule("rename-column", "error", "a column is renamed", why=f"{STILL_USES} the old name", fact=ColumnRenamed)
def rename_column(fact: ColumnRenamed, seen: Seen) -> Found | None:
    if seen.made_column(fact.table, fact.column) or seen.made("view", fact.table) or seen.made("type", fact.table):
        return None
    old, new = fact.table.beside(fact.column).shown, fact.table.beside(fact.to).shown
    return Found(
        f"column {old} of {fact.table} becomes {new}",
        f"ALTER TABLE {fact.table} ADD COLUMN {new} text;  -- of the type of {old}\n"
        f"-- let the application write both, fill {new} in batches (stackctl:repeat), read {new}; drop {old} later",
    )


@rule("rename-table", "error", "a table or view is renamed", why=f"{STILL_USES} the old name", fact=Renamed)
def rename_table(fact: Renamed, seen: Seen) -> Found | None:
    if fact.kind not in ("table", "view") or seen.made("table", fact.name) or seen.made("view", fact.name):
        return None
    new = f"{fact.to}.{fact.name.name}" if fact.moved else fact.name.beside(fact.to).shown
    return Found(
        f"{fact.kind} {fact.name} becomes {new}",
        f"CREATE VIEW {new} AS SELECT * FROM {fact.name};\n"  # noqa: S608 shown, never run
        "-- the new version uses the view; rename the table when no released version uses the old name",
    )


@rule(
    "rename-type", "error", "a type or domain is renamed", why=f"{STILL_USES} the old name in its casts", fact=Renamed
)
def rename_type(fact: Renamed, seen: Seen) -> Found | None:
    if fact.kind != "type" or seen.made("type", fact.name):
        return None
    return suggest_later_release(
        "rename-type", f"type {fact.name} becomes {fact.to}", fact.text, "no released version names it: …"
    )


@rule("rename-enum-value", "error", "an enum value is renamed", why=f"{STILL_USES} the old value",
      fact=EnumValueRenamed)  # fmt: skip
def rename_enum_value(fact: EnumValueRenamed, seen: Seen) -> Found | None:
    if seen.made("type", fact.type):
        return None
    return Found(
        f"value '{fact.value}' of {fact.type} becomes '{fact.to}'",
        f"ALTER TYPE {fact.type} ADD VALUE '{fact.to}';\n"
        "-- let the application read both values, then write the new one; change the rows in batches in a later file",
    )


@rule("rename-other", "error", "a function, sequence or schema is renamed, or moved to another schema",
      why=f"{STILL_USES} the old name", fact=Renamed)  # fmt: skip
def rename_other(fact: Renamed, seen: Seen) -> Found | None:
    if fact.kind not in ("function", "sequence", "schema") or seen.made(fact.kind, fact.name):
        return None
    if fact.kind == "function" and seen.made_function(fact.name, None):
        return None
    what = f"{fact.kind} {fact.name} becomes {fact.to}"
    return suggest_later_release("rename-other", what, fact.text, "no released version names it: …")
