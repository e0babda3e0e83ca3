"""Rules about indexes that are built, dropped or rebuilt while writes wait."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stackctl.migrate.lint.registry import RuleMatch, rule
from stackctl.migrate.lint.rules.constraints import note_unique
from stackctl.migrate.lint.wording import OUTSIDE, suggest_allow
from stackctl.migrate.parser.facts import IndexBuilt, IndexesRebuilt, ObjectDropped

if TYPE_CHECKING:
    from stackctl.migrate.lint.schema_state import FileState

_BLOCKS_WRITES = "until it is done, every INSERT, UPDATE and DELETE on the table waits"
_QUEUES = "it waits for every query on the table, and meanwhile all later ones wait behind it"


@rule("index-not-concurrent", "error", "an index is built without CONCURRENTLY", why=_BLOCKS_WRITES,
      fact=IndexBuilt, by_size=True)  # fmt: skip
def index_not_concurrent(fact: IndexBuilt, state: FileState) -> RuleMatch | None:
    if fact.concurrently or state.has_created("table", fact.table):
        return None
    what = f"CREATE INDEX {f'{fact.name} ' if fact.name else ''}on {fact.table}"
    known = state.is_partitioned(fact.table)
    if fact.only and known is not False:
        return None  # on the partitioned table itself nothing is built
    if known:
        safe = (
            "-- a partitioned table takes no CONCURRENTLY: build one on each partition, then attach them\n"
            + re.sub(r"\bON\b", "ON ONLY", fact.text, count=1, flags=re.IGNORECASE) + ";"
        )  # fmt: skip
    else:
        safe = (
            OUTSIDE
            + note_unique(fact, state)
            + re.sub(r"\bINDEX\b", "INDEX CONCURRENTLY", fact.text, count=1, flags=re.IGNORECASE)
            + ";"
        )
    return RuleMatch(what, safe, fact.table)


@rule("drop-index-not-concurrent", "error", "an index is dropped without CONCURRENTLY", why=_QUEUES, fact=ObjectDropped)
def drop_index_not_concurrent(fact: ObjectDropped, state: FileState) -> RuleMatch | None:
    if fact.kind != "index" or fact.concurrently:
        return None
    known = state.schema.indexes.get(fact.name)
    if known and not state.is_live(known.table):
        return None
    return RuleMatch(f"DROP INDEX {fact.name}", f"{OUTSIDE}DROP INDEX CONCURRENTLY IF EXISTS {fact.name};")


@rule("concurrently-on-partitioned", "error", "an index of a partitioned table is built or dropped CONCURRENTLY",
      why="the server refuses it, so the migration fails", fact=(IndexBuilt, ObjectDropped))  # fmt: skip
def concurrently_on_partitioned(fact: IndexBuilt | ObjectDropped, state: FileState) -> RuleMatch | None:
    if not fact.concurrently or fact.name is None:
        return None
    if isinstance(fact, IndexBuilt):
        if not state.is_partitioned(fact.table):
            return None
        alone = re.sub(r"\s+CONCURRENTLY\b", "", fact.text, count=1, flags=re.IGNORECASE)
        alone = re.sub(r"\bON\b(?!\s+ONLY\b)", "ON ONLY", alone, count=1, flags=re.IGNORECASE)
        safe = "-- then one on each partition, CONCURRENTLY, and attach them: ALTER INDEX … ATTACH PARTITION …"
        return RuleMatch(f"CREATE INDEX CONCURRENTLY {fact.name} on {fact.table}", f"{alone};\n{safe}")
    known = state.schema.indexes.get(fact.name)
    if known is None or not state.is_partitioned(known.table):
        return None
    safe = suggest_allow("drop-index-not-concurrent", "the server knows no other way: …", f"DROP INDEX {fact.name}")
    return RuleMatch(f"DROP INDEX CONCURRENTLY {fact.name} of {known.table}", safe)


@rule("reindex-not-concurrent", "error", "REINDEX without CONCURRENTLY", why=_BLOCKS_WRITES, fact=IndexesRebuilt)
def reindex_not_concurrent(fact: IndexesRebuilt, state: FileState) -> RuleMatch | None:
    if fact.concurrently or (fact.name and state.has_created(fact.kind, fact.name)):
        return None
    if state.schema.is_older_than(12):
        safe = (
            "-- before PostgreSQL 12: build the same index under another name, CONCURRENTLY, and drop this one likewise"
        )
        return RuleMatch(f"REINDEX {fact.name or fact.kind}", safe)
    what = f"{fact.kind.upper()} CONCURRENTLY {fact.name or ''}".rstrip()
    return RuleMatch(f"REINDEX {fact.name or fact.kind}", f"{OUTSIDE}REINDEX {what};")
