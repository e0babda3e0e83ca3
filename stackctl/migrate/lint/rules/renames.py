"""Rules about what is renamed while the previous version of the application still uses the old name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackctl.migrate.lint.registry import RULES, LintRule, RuleMatch, rule
from stackctl.migrate.lint.wording import STILL_USES, suggest_later_release
from stackctl.migrate.parser.facts import ColumnRenamed, EnumValueRenamed, ObjectRenamed

if TYPE_CHECKING:
    from collections.abc import Callable

    from stackctl.migrate.lint.schema_state import FileState


@rule("rename-column", "error", "a column is renamed", why=f"{STILL_USES} the old name", fact=ColumnRenamed)
def rename_column(fact: ColumnRenamed, state: FileState) -> RuleMatch | None:
    if state.has_added_column(fact.table, fact.column) or state.has_created("view", fact.table):
        return None
    old, new = fact.table.sibling(fact.column).shown, fact.table.sibling(fact.to).shown
    return RuleMatch(
        f"column {old} of {fact.table} becomes {new}",
        f"ALTER TABLE {fact.table} ADD COLUMN {new} text;  -- of the type of {old}\n"
        f"-- let the application write both, fill {new} in batches (stackctl:repeat), read {new}; drop {old} later",
    )


@rule("rename-table", "error", "a table or view is renamed", why=f"{STILL_USES} the old name", fact=ObjectRenamed)
def rename_table(fact: ObjectRenamed, state: FileState) -> RuleMatch | None:
    if (
        fact.kind not in ("table", "view")
        or state.has_created("table", fact.name)
        or state.has_created("view", fact.name)
        or (fact.kind == "table" and state.creates_later("view", fact.name))  # that is relation-kind
    ):
        return None
    new = f"{fact.to}.{fact.name.name}" if fact.moved else fact.name.sibling(fact.to).shown
    return RuleMatch(
        f"{fact.kind} {fact.name} becomes {new}",
        f"CREATE VIEW {new} AS SELECT * FROM {fact.name};\n"  # noqa: S608 shown, never run
        "-- the new version uses the view; rename the table when no released version uses the old name",
    )


@rule(
    "rename-type",
    "error",
    "a type or domain is renamed",
    why=f"{STILL_USES} the old name in its casts",
    fact=ObjectRenamed,
)
def rename_type(fact: ObjectRenamed, state: FileState) -> RuleMatch | None:
    if fact.kind != "type" or state.has_created("type", fact.name):
        return None
    return suggest_later_release(
        "rename-type", f"type {fact.name} becomes {fact.to}", fact.text, "no released version names it: …"
    )


@rule("rename-enum-value", "error", "an enum value is renamed", why=f"{STILL_USES} the old value",
      fact=EnumValueRenamed)  # fmt: skip
def rename_enum_value(fact: EnumValueRenamed, state: FileState) -> RuleMatch | None:
    if state.has_created("type", fact.type):
        return None
    return RuleMatch(
        f"value '{fact.value}' of {fact.type} becomes '{fact.to}'",
        f"ALTER TYPE {fact.type} ADD VALUE '{fact.to}';\n"
        "-- let the application read both values, then write the new one; change the rows in batches in a later file",
    )


def _renamed(kind: str, rule_id: str) -> Callable[[ObjectRenamed, FileState], RuleMatch | None]:
    def check(fact: ObjectRenamed, state: FileState) -> RuleMatch | None:
        if fact.kind != kind or state.has_created(kind, fact.name):
            return None
        if kind == "function" and state.has_created_function(fact.name, None):
            return None
        what = f"{kind} {fact.name} becomes {fact.to}"
        return suggest_later_release(rule_id, what, fact.text, "no released version names it: …")

    return check


for _kind in ("function", "sequence", "schema"):
    _id = f"rename-{_kind}"
    RULES[_id] = LintRule(
        _id,
        "error",
        f"a {_kind} is renamed" + ", or moved to another schema" * (_kind != "schema"),
        f"{STILL_USES} the old name",
        (ObjectRenamed,),
        _renamed(_kind, _id),
    )
