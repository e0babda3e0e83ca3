"""Rules about what is dropped while the previous version of the application still uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackctl.migrate.lint.registry import RULES, Found, Rule, rule
from stackctl.migrate.lint.wording import STILL_USES, suggest_later_release
from stackctl.migrate.parser.facts import ColumnDropped, ConstraintDropped, DefaultDropped, Dropped

if TYPE_CHECKING:
    from collections.abc import Callable

    from stackctl.migrate.lint.schema_state import Seen


@rule("drop-column", "error", "a column is dropped", why=f"{STILL_USES} the column", fact=ColumnDropped)
def drop_column(fact: ColumnDropped, seen: Seen) -> Found | None:
    if seen.made_column(fact.table, fact.column) or seen.made("type", fact.table):
        return None
    column = fact.table.beside(fact.column).shown
    reason = "no released version reads or writes it: …"
    return suggest_later_release("drop-column", f"column {column} of {fact.table} is dropped", fact.text, reason)


@rule("drop-default", "warning", "a column's default is dropped",
      why="inserts of the previous version that leave the column out get NULL, or fail",
      fact=DefaultDropped)  # fmt: skip
def drop_default(fact: DefaultDropped, seen: Seen) -> Found | None:
    if seen.made_column(fact.table, fact.column) or seen.made("type", fact.table):
        return None
    column = fact.table.beside(fact.column).shown
    reason = "every released version writes it: …"
    return suggest_later_release(
        "drop-default", f"the default of {column} of {fact.table} is dropped", fact.text, reason
    )


@rule("drop-constraint", "warning", "a constraint is dropped",
      why="the application may rely on it (ON CONFLICT, cascades), and rows that break it can't be told apart later",
      fact=ConstraintDropped)  # fmt: skip
def drop_constraint(fact: ConstraintDropped, seen: Seen) -> Found | None:
    if seen.made_constraint(fact.table, fact.name) or seen.replaced_by_not_null(fact.table, fact.name):
        return None
    name = fact.table.beside(fact.name).shown
    return suggest_later_release(
        "drop-constraint", f"constraint {name} of {fact.table} is dropped", fact.text, "nothing relies on it: …"
    )


def _dropped(kind: str, rule_id: str) -> Callable[[Dropped, Seen], Found | None]:
    def check(fact: Dropped, seen: Seen) -> Found | None:
        if fact.kind != kind or seen.made(kind, fact.name):
            return None
        if kind == "function" and seen.made_function(fact.name, fact.arguments):
            return None
        return suggest_later_release(
            rule_id, f"{kind} {fact.name} is dropped", fact.text, "no released version uses it: …"
        )

    return check


for _kind in ("table", "view", "function", "type", "sequence", "schema", "extension"):
    _id = f"drop-{_kind}"
    RULES[_id] = Rule(
        _id,
        "error",
        f"{'an' if _kind == 'extension' else 'a'} {_kind} is dropped",
        f"{STILL_USES} it",
        Dropped,
        _dropped(_kind, _id),
    )
