"""Rules about what the previous version of the application, still running, would miss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackctl.migrate.lint.registry import RULES, Found, Rule, allowed, rule
from stackctl.migrate.parser.facts import (
    ColumnDropped,
    ColumnRenamed,
    ConstraintDropped,
    DefaultDropped,
    Dropped,
    EnumValueRenamed,
    Renamed,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from stackctl.migrate.lint.schema_state import Seen

_STILL_USES = "the previous version of the application runs until the new one has taken over, and still uses"


@rule("rename-column", "error", "a column is renamed", why=f"{_STILL_USES} the old name", fact=ColumnRenamed)
def rename_column(fact: ColumnRenamed, seen: Seen) -> Found | None:
    if seen.made_column(fact.table, fact.column) or seen.made("view", fact.table) or seen.made("type", fact.table):
        return None
    old, new = fact.table.beside(fact.column).shown, fact.table.beside(fact.to).shown
    return Found(
        f"column {old} of {fact.table} becomes {new}",
        f"ALTER TABLE {fact.table} ADD COLUMN {new} text;  -- of the type of {old}\n"
        f"-- let the application write both, fill {new} in batches (stackctl:repeat), read {new}; drop {old} later",
    )


@rule("rename-table", "error", "a table or view is renamed", why=f"{_STILL_USES} the old name", fact=Renamed)
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
    "rename-type", "error", "a type or domain is renamed", why=f"{_STILL_USES} the old name in its casts", fact=Renamed
)
def rename_type(fact: Renamed, seen: Seen) -> Found | None:
    if fact.kind != "type" or seen.made("type", fact.name):
        return None
    return _later("rename-type", f"type {fact.name} becomes {fact.to}", fact.text, "no released version names it: …")


@rule("rename-enum-value", "error", "an enum value is renamed", why=f"{_STILL_USES} the old value",
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
      why=f"{_STILL_USES} the old name", fact=Renamed)  # fmt: skip
def rename_other(fact: Renamed, seen: Seen) -> Found | None:
    if fact.kind not in ("function", "sequence", "schema") or seen.made(fact.kind, fact.name):
        return None
    if fact.kind == "function" and seen.made_function(fact.name, None):
        return None
    what = f"{fact.kind} {fact.name} becomes {fact.to}"
    return _later("rename-other", what, fact.text, "no released version names it: …")


@rule("drop-column", "error", "a column is dropped", why=f"{_STILL_USES} the column", fact=ColumnDropped)
def drop_column(fact: ColumnDropped, seen: Seen) -> Found | None:
    if seen.made_column(fact.table, fact.column) or seen.made("type", fact.table):
        return None
    column = fact.table.beside(fact.column).shown
    reason = "no released version reads or writes it: …"
    return _later("drop-column", f"column {column} of {fact.table} is dropped", fact.text, reason)


@rule("drop-default", "warning", "a column's default is dropped",
      why="inserts of the previous version that leave the column out get NULL, or fail",
      fact=DefaultDropped)  # fmt: skip
def drop_default(fact: DefaultDropped, seen: Seen) -> Found | None:
    if seen.made_column(fact.table, fact.column) or seen.made("type", fact.table):
        return None
    column = fact.table.beside(fact.column).shown
    reason = "every released version writes it: …"
    return _later("drop-default", f"the default of {column} of {fact.table} is dropped", fact.text, reason)


@rule("drop-constraint", "warning", "a constraint is dropped",
      why="the application may rely on it (ON CONFLICT, cascades), and rows that break it can't be told apart later",
      fact=ConstraintDropped)  # fmt: skip
def drop_constraint(fact: ConstraintDropped, seen: Seen) -> Found | None:
    if seen.made_constraint(fact.table, fact.name) or seen.replaced_by_not_null(fact.table, fact.name):
        return None
    name = fact.table.beside(fact.name).shown
    return _later(
        "drop-constraint", f"constraint {name} of {fact.table} is dropped", fact.text, "nothing relies on it: …"
    )


def _dropped(kind: str, rule_id: str) -> Callable[[Dropped, Seen], Found | None]:
    def check(fact: Dropped, seen: Seen) -> Found | None:
        if fact.kind != kind or seen.made(kind, fact.name):
            return None
        if kind == "function" and seen.made_function(fact.name, fact.arguments):
            return None
        return _later(rule_id, f"{kind} {fact.name} is dropped", fact.text, "no released version uses it: …")

    return check


for _kind in ("table", "view", "function", "type", "sequence", "schema", "extension"):
    _id = f"drop-{_kind}"
    RULES[_id] = Rule(
        _id,
        "error",
        f"{'an' if _kind == 'extension' else 'a'} {_kind} is dropped",
        f"{_STILL_USES} it",
        Dropped,
        _dropped(_kind, _id),
    )


def _later(rule_id: str, what: str, statement: str, reason: str) -> Found:
    """The safe way is to wait for a release, and to say so."""
    return Found(what, f"-- one release later:\n{allowed(rule_id, reason, statement)}")
