"""Rules about partitions that are attached or detached."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stackctl.migrate.lint.registry import RuleMatch, rule
from stackctl.migrate.lint.wording import OUTSIDE, suggest_allow
from stackctl.migrate.parser.facts import ObjectCreated, PartitionMoved

if TYPE_CHECKING:
    from stackctl.migrate.lint.schema_state import FileState

_BLOCKS_ALL = "until it is done, everything else on the table waits, reads included"


@rule("detach-not-concurrent", "error", "a partition is detached without CONCURRENTLY", why=_BLOCKS_ALL,
      fact=PartitionMoved)  # fmt: skip
def detach_not_concurrent(fact: PartitionMoved, state: FileState) -> RuleMatch | None:
    if fact.how != "detach" or fact.concurrently or state.has_created("table", fact.table):
        return None
    safe = f"{OUTSIDE}ALTER TABLE {fact.table} DETACH PARTITION {fact.partition} CONCURRENTLY;"
    if state.schema.is_older_than(14):
        safe = suggest_allow("detach-not-concurrent", "PostgreSQL before 14 knows no other way: …", fact.text)
    return RuleMatch(f"DETACH PARTITION {fact.partition} from {fact.table}", safe)


@rule("attach-reads-partition", "warning", "a table with rows becomes a partition",
      why="unless a validated check says that its rows fit, all of them are read while everything else on it waits, "
      "and so are those of a default partition",
      fact=PartitionMoved)  # fmt: skip
def attach_reads_partition(fact: PartitionMoved, state: FileState) -> RuleMatch | None:
    if fact.how != "attach":
        return None
    if state.schema.is_older_than(12) and state.is_live(fact.table):
        what = f"ATTACH PARTITION {fact.partition} to {fact.table}, which PostgreSQL before 12 locks against everything"
        reason = "it is empty, or a validated check holds its bounds: …"
        return RuleMatch(what, suggest_allow("attach-reads-partition", reason, fact.text))
    if state.has_created("table", fact.partition) and not state.has_filled(fact.partition):
        return None
    safe = suggest_allow("attach-reads-partition", "a validated check holds its bounds: …", fact.text)
    return RuleMatch(f"ATTACH PARTITION {fact.partition} to {fact.table}", safe)


@rule("partition-locks-parent", "warning", "a partition is made with PARTITION OF",
      why="it waits for every query on the partitioned table, and meanwhile all later ones wait behind it; a table of "
      "its own that is attached lets them through", fact=ObjectCreated)  # fmt: skip
def partition_locks_parent(fact: ObjectCreated, state: FileState) -> RuleMatch | None:
    if fact.parent is None or not state.is_live(fact.parent):
        return None
    if state.schema.is_older_than(12):  # to attach takes the same lock
        safe = suggest_allow("partition-locks-parent", "for a moment, because …", fact.text)
        return RuleMatch(f"{fact.name} is made a partition of {fact.parent}", safe)
    bounds = re.search(r"\b(?:FOR\s+VALUES|DEFAULT)\b.*", fact.text, re.IGNORECASE | re.DOTALL)
    return RuleMatch(
        f"{fact.name} is made a partition of {fact.parent}",
        f"CREATE TABLE {fact.name} (LIKE {fact.parent} INCLUDING DEFAULTS INCLUDING CONSTRAINTS);\n"
        f"ALTER TABLE {fact.parent} ATTACH PARTITION {fact.name} {bounds[0] if bounds else 'DEFAULT'};",
    )
