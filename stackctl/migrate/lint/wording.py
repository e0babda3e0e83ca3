"""What several rules say: why something hurts, and the SQL to write instead, which is shown and never run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackctl.migrate.lint.registry import RuleMatch

if TYPE_CHECKING:
    from stackctl.migrate.parser.token_reader import QualifiedName

STILL_USES = "the previous version of the application runs until the new one has taken over, and still uses"
REWRITES = "the whole table is rewritten, and until that is done everything else on it waits, reads included"
READS_ALL = "all rows are read while everything else on the table waits, reads included"

OUTSIDE = "-- stackctl:split\n-- stackctl:outside-transaction\n"
SPLIT = "-- stackctl:split\n"


def suggest_allow(rule_id: str, reason: str, statement: str) -> str:
    """The same statement, with the comment that lets it pass."""
    return f"-- stackctl:allow {rule_id} {reason}\n{statement};"


def suggest_backfill(table: QualifiedName, assignment: str, still_to_do: str) -> str:
    """A piece that updates rows in batches. It runs the file again and again: what stands before must bear that."""
    return (  # shown, never run
        f"{SPLIT}-- stackctl:repeat\n"  # noqa: S608
        "WITH filled AS (\n"
        f"  UPDATE {table} SET {assignment}\n"
        f"  WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} WHERE {still_to_do} LIMIT 1000 FOR UPDATE))\n"
        f"    AND {still_to_do}\n"
        "  RETURNING 1\n"
        ")\n"
        "SELECT count(*) > 0 AS should_repeat_migration FROM filled;"
    )


def suggest_later_release(rule_id: str, what: str, statement: str, reason: str) -> RuleMatch:
    """The safe way is to wait for a release, and to say so."""
    return RuleMatch(what, f"-- one release later:\n{suggest_allow(rule_id, reason, statement)}")


def suggest_batched_delete(table: str) -> str:
    return (  # shown, never run
        f"{SPLIT}-- stackctl:repeat\n"  # noqa: S608
        "WITH gone AS (\n"
        f"  DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} LIMIT 1000)) RETURNING 1\n)\n"
        "SELECT count(*) > 0 AS should_repeat_migration FROM gone;"
    )
