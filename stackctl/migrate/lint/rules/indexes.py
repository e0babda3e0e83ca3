"""Rules about indexes that are built, dropped or rebuilt while writes wait."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stackctl.migrate.lint.registry import Found, rule
from stackctl.migrate.lint.wording import OUTSIDE
from stackctl.migrate.parser.facts import Dropped, IndexBuilt, Reindexed

if TYPE_CHECKING:
    from stackctl.migrate.lint.schema_state import Seen

_BLOCKS_WRITES = "until it is done, every INSERT, UPDATE and DELETE on the table waits"
_QUEUES = "it waits for every query on the table, and meanwhile all later ones wait behind it"


@rule("index-not-concurrent", "error", "an index is built without CONCURRENTLY", why=_BLOCKS_WRITES,
      fact=IndexBuilt, by_size=True)  # fmt: skip
def index_not_concurrent(fact: IndexBuilt, seen: Seen) -> Found | None:
    if fact.concurrently or seen.made("table", fact.table):
        return None
    what = f"CREATE INDEX {f'{fact.name} ' if fact.name else ''}on {fact.table}"
    known = seen.asked.partitioned(fact.table) if seen.asked else None
    if fact.only and known is not False:
        return None  # on the partitioned table itself nothing is built
    if fact.table in seen.history.partitioned or known:
        safe = (
            "-- a partitioned table takes no CONCURRENTLY: build one on each partition, then attach them\n"
            + re.sub(r"\bON\b", "ON ONLY", fact.text, count=1, flags=re.IGNORECASE) + ";"
        )  # fmt: skip
    else:
        safe = OUTSIDE + re.sub(r"\bINDEX\b", "INDEX CONCURRENTLY", fact.text, count=1, flags=re.IGNORECASE) + ";"
    return Found(what, safe, fact.table)


@rule("drop-index-not-concurrent", "error", "an index is dropped without CONCURRENTLY", why=_QUEUES, fact=Dropped)
def drop_index_not_concurrent(fact: Dropped, seen: Seen) -> Found | None:
    if fact.kind != "index" or fact.concurrently or seen.made("index", fact.name):
        return None
    return Found(f"DROP INDEX {fact.name}", f"{OUTSIDE}DROP INDEX CONCURRENTLY IF EXISTS {fact.name};")


@rule("reindex-not-concurrent", "error", "REINDEX without CONCURRENTLY", why=_BLOCKS_WRITES, fact=Reindexed)
def reindex_not_concurrent(fact: Reindexed, seen: Seen) -> Found | None:
    if fact.concurrently or (fact.name and seen.made(fact.kind, fact.name)):
        return None
    what = f"{fact.kind.upper()} CONCURRENTLY {fact.name or ''}".rstrip()
    return Found(f"REINDEX {fact.name or fact.kind}", f"{OUTSIDE}REINDEX {what};")
