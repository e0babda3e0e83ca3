"""Rules about partitions that are attached or detached."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackctl.migrate.lint.registry import RuleMatch, rule
from stackctl.migrate.lint.wording import OUTSIDE, suggest_allow
from stackctl.migrate.parser.facts import PartitionMoved

if TYPE_CHECKING:
    from stackctl.migrate.lint.schema_state import FileState

_BLOCKS_ALL = "until it is done, everything else on the table waits, reads included"


@rule("detach-not-concurrent", "error", "a partition is detached without CONCURRENTLY", why=_BLOCKS_ALL,
      fact=PartitionMoved)  # fmt: skip
def detach_not_concurrent(fact: PartitionMoved, state: FileState) -> RuleMatch | None:
    if fact.how != "detach" or fact.concurrently or state.has_created("table", fact.table):
        return None
    safe = f"{OUTSIDE}ALTER TABLE {fact.table} DETACH PARTITION {fact.partition} CONCURRENTLY;"
    return RuleMatch(f"DETACH PARTITION {fact.partition} from {fact.table}", safe)


@rule("attach-reads-partition", "warning", "a table with rows becomes a partition",
      why="unless a validated check says that its rows fit, all of them are read while everything else on it waits",
      fact=PartitionMoved)  # fmt: skip
def attach_reads_partition(fact: PartitionMoved, state: FileState) -> RuleMatch | None:
    if fact.how != "attach" or state.has_created("table", fact.partition):
        return None
    safe = suggest_allow("attach-reads-partition", "a validated check holds its bounds: …", fact.text)
    return RuleMatch(f"ATTACH PARTITION {fact.partition} to {fact.table}", safe)
