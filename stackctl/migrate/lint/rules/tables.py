"""Rules about tables and materialized views that are locked, or rewritten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackctl.migrate.lint.registry import RuleMatch, rule
from stackctl.migrate.lint.wording import OUTSIDE, REWRITES, suggest_allow
from stackctl.migrate.parser.facts import TableCompacted, TableLocked, TableRewritten, ViewRefreshed

if TYPE_CHECKING:
    from stackctl.migrate.lint.schema_state import FileState


@rule("vacuum-full-or-cluster", "error", "VACUUM FULL or CLUSTER", why=REWRITES, fact=TableCompacted, by_size=True)
def vacuum_full_or_cluster(fact: TableCompacted, state: FileState) -> RuleMatch | None:
    if fact.table and state.has_created("table", fact.table):
        return None
    name = f" {fact.table}" if fact.table else ""
    return RuleMatch(
        f"{fact.how}{name}",
        f"{OUTSIDE}VACUUM (ANALYZE){name};  -- it makes space for new rows; to shrink the file, use pg_repack",
        fact.table,
    )


@rule("table-rewrite", "error", "a table is moved or rewritten (SET LOGGED, TABLESPACE, a stored generated column)",
      why=REWRITES, fact=TableRewritten, by_size=True)  # fmt: skip
def table_rewrite(fact: TableRewritten, state: FileState) -> RuleMatch | None:
    if state.has_created("table", fact.table) or state.has_created("index", fact.table):
        return None
    safe = suggest_allow("table-rewrite", "in a maintenance window, because …", fact.text)
    return RuleMatch(f"{fact.how} on {fact.table}", safe, fact.table)


@rule("refresh-not-concurrent", "warning", "REFRESH MATERIALIZED VIEW without CONCURRENTLY",
      why="until it is done, every query of the view waits", fact=ViewRefreshed)  # fmt: skip
def refresh_not_concurrent(fact: ViewRefreshed, state: FileState) -> RuleMatch | None:
    if fact.concurrently or state.has_created("view", fact.name):
        return None
    safe = f"REFRESH MATERIALIZED VIEW CONCURRENTLY {fact.name};  -- it needs a unique index on the view"
    return RuleMatch(f"REFRESH MATERIALIZED VIEW {fact.name}", safe)


@rule("lock-table", "warning", "LOCK TABLE", why="the lock stays until the whole file is committed", fact=TableLocked)
def lock_table(fact: TableLocked, state: FileState) -> RuleMatch | None:
    if state.has_created("table", fact.table):
        return None
    return RuleMatch(f"LOCK TABLE {fact.table}", suggest_allow("lock-table", "for a moment, because …", fact.text))
