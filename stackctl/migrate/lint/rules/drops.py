"""Rules about what is dropped while the previous version of the application still uses it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stackctl.migrate.lint.registry import RULES, LintRule, RuleMatch, rule
from stackctl.migrate.lint.wording import OUTSIDE, STILL_USES, suggest_later_release
from stackctl.migrate.parser.facts import ColumnDropped, ConstraintDropped, DefaultDropped, ObjectDropped

if TYPE_CHECKING:
    from collections.abc import Callable

    from stackctl.migrate.lint.schema_state import FileState


@rule("drop-column", "error", "a column is dropped", why=f"{STILL_USES} the column", fact=ColumnDropped)
def drop_column(fact: ColumnDropped, state: FileState) -> RuleMatch | None:
    if state.has_added_column(fact.table, fact.column) or not state.is_live(fact.table):
        return None
    column = fact.table.sibling(fact.column).shown
    reason = "no released version reads or writes it: …"
    return suggest_later_release("drop-column", f"column {column} of {fact.table} is dropped", fact.text, reason)


@rule("drop-default", "warning", "a column's default is dropped",
      why="inserts of the previous version that leave the column out get NULL, or fail",
      fact=DefaultDropped)  # fmt: skip
def drop_default(fact: DefaultDropped, state: FileState) -> RuleMatch | None:
    if state.has_added_column(fact.table, fact.column) or not state.is_live(fact.table):
        return None
    column = fact.table.sibling(fact.column).shown
    reason = "every released version writes it: …"
    return suggest_later_release(
        "drop-default", f"the default of {column} of {fact.table} is dropped", fact.text, reason
    )


@rule("drop-constraint", "warning", "a constraint is dropped",
      why="the application may rely on it (ON CONFLICT, cascades), and rows that break it can't be told apart later",
      fact=ConstraintDropped)  # fmt: skip
def drop_constraint(fact: ConstraintDropped, state: FileState) -> RuleMatch | None:
    if state.has_added_constraint(fact.table, fact.name) or state.is_replaced_by_not_null(fact.table, fact.name):
        return None
    if (fact.table, fact.name) in state.whole.constraints or not state.is_live(fact.table):
        return None  # it comes back, or its table goes
    name = fact.table.sibling(fact.name).shown
    return suggest_later_release(
        "drop-constraint", f"constraint {name} of {fact.table} is dropped", fact.text, "nothing relies on it: …"
    )


@rule("drop-index", "advice", "an index is dropped", why="queries of the previous version may need it",
      fact=ObjectDropped)  # fmt: skip
def drop_index(fact: ObjectDropped, state: FileState) -> RuleMatch | None:
    known = state.schema.indexes.get(fact.name)
    if fact.kind != "index" or state.has_created("index", fact.name):
        return None
    if state.creates_later("index", fact.name) or (known and known.columns in state.whole.indexes.get(known.table, ())):
        return None  # it comes back
    safe = "-- see in pg_stat_user_indexes whether it is used"
    return RuleMatch(f"index {fact.name} is dropped", safe)


def _dropped(kind: str, rule_id: str) -> Callable[[ObjectDropped, FileState], RuleMatch | None]:
    def check(fact: ObjectDropped, state: FileState) -> RuleMatch | None:
        if fact.kind != kind or state.has_created(kind, fact.name):
            return None
        if kind == "function" and state.has_created_function(fact.name, fact.arguments):
            return None
        if kind in ("function", "view") and state.creates_later(kind, fact.name):
            return None  # that is function-changed, view-changed
        found = suggest_later_release(
            rule_id, f"{kind} {fact.name} is dropped", fact.text, "no released version uses it: …"
        )
        return replace(found, safe=OUTSIDE + found.safe) if kind == "database" else found

    return check


for _kind in ("table", "view", "function", "type", "sequence", "schema", "extension", "role", "database"):
    _id = f"drop-{_kind}"
    RULES[_id] = LintRule(
        _id,
        "error",
        f"{'an' if _kind == 'extension' else 'a'} {_kind} is dropped",
        f"{STILL_USES} it",
        (ObjectDropped,),
        _dropped(_kind, _id),
    )
