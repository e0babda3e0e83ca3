"""Rules about statements that take all rows of a table in one go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackctl.migrate.lint.registry import RuleMatch, rule
from stackctl.migrate.lint.wording import OUTSIDE, suggest_backfill, suggest_batched_delete
from stackctl.migrate.parser.facts import RowsWritten, TableTruncated

if TYPE_CHECKING:
    from stackctl.migrate.lint.schema_state import FileState

_ONE_GO = "one long transaction locks every row, keeps VACUUM from cleaning up, and doubles the table before it commits"


@rule("truncate-cascade", "error", "TRUNCATE … CASCADE",
      why="it empties every table that refers to this one, whichever those are on the day",
      fact=TableTruncated)  # fmt: skip
def truncate_cascade(fact: TableTruncated, state: FileState) -> RuleMatch | None:
    if not fact.cascade or state.has_created("table", fact.table):
        return None
    return RuleMatch(f"TRUNCATE {fact.table} CASCADE", suggest_batched_delete(fact.table.shown))


@rule("truncate", "warning", "TRUNCATE", why="the rows are gone for the previous version too, and it waits for every "
      "query on the table while all later ones wait behind it", fact=TableTruncated)  # fmt: skip
def truncate(fact: TableTruncated, state: FileState) -> RuleMatch | None:
    if fact.cascade or state.has_created("table", fact.table):
        return None
    return RuleMatch(f"TRUNCATE {fact.table}", suggest_batched_delete(fact.table.shown))


@rule("whole-table-at-once", "error", "UPDATE or DELETE of a whole table outside a repeated piece", why=_ONE_GO,
      fact=RowsWritten, by_size=True)  # fmt: skip
def whole_table_at_once(fact: RowsWritten, state: FileState) -> RuleMatch | None:
    if not fact.everything or state.repeat or state.has_created("table", fact.table):
        return None
    if fact.how == "DELETE":
        safe = suggest_batched_delete(fact.table.shown)
    elif fact.value:
        column, value = fact.value
        safe = suggest_backfill(fact.table, f"{column} = {value}", f"{column} IS DISTINCT FROM ({value})")
    else:
        safe = "-- write it so that it changes at most 1000 rows, and only those still to do; let it return\n"
        safe += "-- should_repeat_migration, and put it into a piece of its own, with a line:  -- stackctl:repeat"
    return RuleMatch(f"{fact.how} of all rows of {fact.table}", safe, fact.table)


@rule("rows-written-under-lock", "error",
      "rows are written while the transaction holds a lock that an earlier statement took",
      why="until the last row is written, everything else on the locked table waits, as a rule reads included",
      fact=RowsWritten)  # fmt: skip
def rows_written_under_lock(fact: RowsWritten, state: FileState) -> RuleMatch | None:
    table = fact.table
    if state.repeat or state.has_created("table", table) or whole_table_at_once(fact, state):
        return None
    # A value in a column that all rows have only just got holds none of them back.
    if any(not state.has_added_column(table, column) for column in fact.narrow):
        return None
    if not state.holds_lock(None if fact.how == "MERGE" else table):
        return None
    return RuleMatch(
        f"{fact.how} on {table} under a lock",
        f"-- when the lock is gone; in batches (stackctl:repeat) if the rows are many:\n{OUTSIDE}{fact.text};",
    )
