"""Rules about tables and materialized views that are locked, or written anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackctl.migrate.lint.registry import Found, rule
from stackctl.migrate.lint.wording import OUTSIDE, REWRITES, suggest_allow
from stackctl.migrate.parser.facts import Compacted, Locked, Refreshed, Rewritten

if TYPE_CHECKING:
    from stackctl.migrate.lint.schema_state import Seen


@rule("vacuum-full-or-cluster", "error", "VACUUM FULL or CLUSTER", why=REWRITES, fact=Compacted, by_size=True)
def vacuum_full_or_cluster(fact: Compacted, seen: Seen) -> Found | None:
    if fact.table and seen.made("table", fact.table):
        return None
    name = f" {fact.table}" if fact.table else ""
    return Found(
        f"{fact.how}{name}",
        f"{OUTSIDE}VACUUM (ANALYZE){name};  -- it makes space for new rows; to shrink the file, use pg_repack",
        fact.table,
    )


@rule("table-rewrite", "error", "a table is moved or written anew (SET LOGGED, TABLESPACE, a stored generated column)",
      why=REWRITES, fact=Rewritten, by_size=True)  # fmt: skip
def table_rewrite(fact: Rewritten, seen: Seen) -> Found | None:
    if seen.made("table", fact.table) or seen.made("index", fact.table):
        return None
    safe = suggest_allow("table-rewrite", "in a maintenance window, because …", fact.text)
    return Found(f"{fact.how} on {fact.table}", safe, fact.table)


@rule("refresh-not-concurrent", "warning", "REFRESH MATERIALIZED VIEW without CONCURRENTLY",
      why="until it is done, every query of the view waits", fact=Refreshed)  # fmt: skip
def refresh_not_concurrent(fact: Refreshed, seen: Seen) -> Found | None:
    if fact.concurrently or seen.made("view", fact.name):
        return None
    safe = f"REFRESH MATERIALIZED VIEW CONCURRENTLY {fact.name};  -- it needs a unique index on the view"
    return Found(f"REFRESH MATERIALIZED VIEW {fact.name}", safe)


@rule("lock-table", "warning", "LOCK TABLE", why="the lock stays until the whole file is committed", fact=Locked)
def lock_table(fact: Locked, seen: Seen) -> Found | None:
    if seen.made("table", fact.table):
        return None
    return Found(f"LOCK TABLE {fact.table}", suggest_allow("lock-table", "for a moment, because …", fact.text))
