"""Rules about statements that hold up the application: long locks, rewritten tables, whole tables in one go."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stackctl.migrate.lint.registry import OUTSIDE, SPLIT, Found, allowed, backfill, rule
from stackctl.migrate.parser import volatility
from stackctl.migrate.parser.facts import (
    ColumnAdded,
    Compacted,
    Dropped,
    IndexBuilt,
    Locked,
    NoTransaction,
    PartitionMoved,
    Refreshed,
    Reindexed,
    Rewritten,
    RowsWritten,
    Truncated,
    TypeChanged,
)

if TYPE_CHECKING:
    from stackctl.migrate.lint.schema_state import Seen

_BLOCKS_WRITES = "until it is done, every INSERT, UPDATE and DELETE on the table waits"
_BLOCKS_ALL = "until it is done, everything else on the table waits, reads included"
_REWRITES = "the whole table is written anew, and until that is done everything else on it waits, reads included"
_QUEUES = "it waits for every query on the table, and meanwhile all later ones wait behind it"
_ONE_GO = "one long transaction locks every row, keeps VACUUM from cleaning up, and doubles the table before it commits"


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


@rule("cannot-run-in-transaction", "error", "CONCURRENTLY, VACUUM and the like inside the file's transaction",
      why="the server refuses it inside a transaction, so the migration fails", fact=NoTransaction)  # fmt: skip
def cannot_run_in_transaction(fact: NoTransaction, seen: Seen) -> Found | None:
    if seen.outside:
        return None
    return Found(fact.how, f"{OUTSIDE}{fact.text};")


@rule("vacuum-full-or-cluster", "error", "VACUUM FULL or CLUSTER", why=_REWRITES, fact=Compacted, by_size=True)
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
      why=_REWRITES, fact=Rewritten, by_size=True)  # fmt: skip
def table_rewrite(fact: Rewritten, seen: Seen) -> Found | None:
    if seen.made("table", fact.table) or seen.made("index", fact.table):
        return None
    safe = allowed("table-rewrite", "in a maintenance window, because …", fact.text)
    return Found(f"{fact.how} on {fact.table}", safe, fact.table)


@rule("generated-column-added", "error", "a stored generated column is added", why=_REWRITES, fact=ColumnAdded,
      by_size=True)  # fmt: skip
def generated_column_added(fact: ColumnAdded, seen: Seen) -> Found | None:
    column = fact.column
    if not column.stored or seen.made("table", fact.table):
        return None
    return Found(
        f"column {column.shown} of {fact.table} is generated and stored",
        f"ALTER TABLE {fact.table} ADD COLUMN IF NOT EXISTS {column.shown} {column.type.text};\n"
        "-- keep it up to date with a trigger, and fill the rows that are there in batches (stackctl:repeat)",
        fact.table,
    )


@rule("volatile-default", "error", "a column is added with a volatile default", why=_REWRITES, fact=ColumnAdded,
      by_size=True)  # fmt: skip
def volatile_default(fact: ColumnAdded, seen: Seen) -> Found | None:
    return _default(fact, seen, volatile=True)


@rule("default-not-known", "warning", "a column is added with a default whose function is not known",
      why="if the function is volatile, the whole table is written anew while everything else on it waits; "
      "--ask-database finds out",
      fact=ColumnAdded, by_size=True)  # fmt: skip
def default_not_known(fact: ColumnAdded, seen: Seen) -> Found | None:
    return _default(fact, seen, volatile=None)


def _default(fact: ColumnAdded, seen: Seen, *, volatile: bool | None) -> Found | None:
    column = fact.column
    if column.default is None or column.stored or seen.made("table", fact.table):
        return None
    call, is_volatile = volatility.most_volatile(column.calls, seen.asked)
    if is_volatile is not volatile:
        return None
    table, name = fact.table, column.shown
    safe = (
        f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {name} {column.type.text};\n"
        f"ALTER TABLE {table} ALTER COLUMN {name} SET DEFAULT {column.default};\n"
        + backfill(table, f"{name} = {column.default}", f"{name} IS NULL")
    )
    return Found(f"column {name} of {table} has the default {call}()", safe, table)


@rule("serial-added", "error", "a serial or identity column is added", why=_REWRITES, fact=ColumnAdded, by_size=True)
def serial_added(fact: ColumnAdded, seen: Seen) -> Found | None:
    column, table = fact.column, fact.table
    if not (column.serial or column.identity) or seen.made("table", table):
        return None
    sequence = table.beside(f"{table.name}_{column.name}_seq").shown
    return Found(
        f"column {column.shown} of {table} numbers the rows",
        f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {column.shown} bigint;\n"
        f"CREATE SEQUENCE IF NOT EXISTS {sequence} OWNED BY {table}.{column.shown};\n"
        f"ALTER TABLE {table} ALTER COLUMN {column.shown} SET DEFAULT nextval('{sequence}');\n"
        + backfill(table, f"{column.shown} = nextval('{sequence}')", f"{column.shown} IS NULL"),
        table,
    )


@rule("column-type-change", "error", "a column's type is changed",
      why="as a rule the whole table is written anew while everything else on it waits, "
      "and the previous version of the application reads values of another type",
      fact=TypeChanged, by_size=True)  # fmt: skip
def column_type_change(fact: TypeChanged, seen: Seen) -> Found | None:
    if seen.made("table", fact.table) or seen.made("type", fact.table):
        return None
    if seen.asked and fact.using is None and seen.asked.same_bytes(fact.table, fact.column, fact.type):
        return None
    new = fact.table.beside(f"{fact.column}_new").shown
    old = fact.table.beside(fact.column).shown
    value = fact.using or f"{old}::{fact.type.text}"
    return Found(
        f"column {old} of {fact.table} becomes {fact.type.text}",
        f"ALTER TABLE {fact.table} ADD COLUMN IF NOT EXISTS {new} {fact.type.text};\n"
        "-- let the application write both columns, and fill the rows that are there:\n"
        f"{backfill(fact.table, f'{new} = {value}', f'{new} IS DISTINCT FROM ({value})')}\n"
        "-- then let it read the new one; drop the old one in a later file",
        fact.table,
    )


@rule("refresh-not-concurrent", "warning", "REFRESH MATERIALIZED VIEW without CONCURRENTLY",
      why="until it is done, every query of the view waits", fact=Refreshed)  # fmt: skip
def refresh_not_concurrent(fact: Refreshed, seen: Seen) -> Found | None:
    if fact.concurrently or seen.made("view", fact.name):
        return None
    safe = f"REFRESH MATERIALIZED VIEW CONCURRENTLY {fact.name};  -- it needs a unique index on the view"
    return Found(f"REFRESH MATERIALIZED VIEW {fact.name}", safe)


@rule("detach-not-concurrent", "error", "a partition is detached without CONCURRENTLY", why=_BLOCKS_ALL,
      fact=PartitionMoved)  # fmt: skip
def detach_not_concurrent(fact: PartitionMoved, seen: Seen) -> Found | None:
    if fact.how != "detach" or fact.concurrently or seen.made("table", fact.table):
        return None
    safe = f"{OUTSIDE}ALTER TABLE {fact.table} DETACH PARTITION {fact.partition} CONCURRENTLY;"
    return Found(f"DETACH PARTITION {fact.partition} from {fact.table}", safe)


@rule("attach-reads-partition", "warning", "a table with rows becomes a partition",
      why="unless a validated check says that its rows fit, all of them are read while everything else on it waits",
      fact=PartitionMoved)  # fmt: skip
def attach_reads_partition(fact: PartitionMoved, seen: Seen) -> Found | None:
    if fact.how != "attach" or seen.made("table", fact.partition):
        return None
    safe = allowed("attach-reads-partition", "a validated check holds its bounds: …", fact.text)
    return Found(f"ATTACH PARTITION {fact.partition} to {fact.table}", safe)


@rule("lock-table", "warning", "LOCK TABLE", why="the lock stays until the whole file is committed", fact=Locked)
def lock_table(fact: Locked, seen: Seen) -> Found | None:
    if seen.made("table", fact.table):
        return None
    return Found(f"LOCK TABLE {fact.table}", allowed("lock-table", "for a moment, because …", fact.text))


@rule("truncate-cascade", "error", "TRUNCATE … CASCADE",
      why="it empties every table that refers to this one, whichever those are on the day", fact=Truncated)  # fmt: skip
def truncate_cascade(fact: Truncated, seen: Seen) -> Found | None:
    if not fact.cascade or seen.made("table", fact.table):
        return None
    return Found(f"TRUNCATE {fact.table} CASCADE", _deleted_in_batches(fact.table.shown))


@rule("truncate", "warning", "TRUNCATE", why="the rows are gone for the previous version too, and it waits for every "
      "query on the table while all later ones wait behind it", fact=Truncated)  # fmt: skip
def truncate(fact: Truncated, seen: Seen) -> Found | None:
    if fact.cascade or seen.made("table", fact.table):
        return None
    return Found(f"TRUNCATE {fact.table}", _deleted_in_batches(fact.table.shown))


@rule("whole-table-at-once", "error", "UPDATE or DELETE of a whole table outside a repeated piece", why=_ONE_GO,
      fact=RowsWritten, by_size=True)  # fmt: skip
def whole_table_at_once(fact: RowsWritten, seen: Seen) -> Found | None:
    if not fact.everything or seen.repeat or seen.made("table", fact.table):
        return None
    if fact.how == "DELETE":
        safe = _deleted_in_batches(fact.table.shown)
    elif fact.value:
        column, value = fact.value
        safe = backfill(fact.table, f"{column} = {value}", f"{column} IS DISTINCT FROM ({value})")
    else:
        safe = "-- write it so that it changes at most 1000 rows, and only those still to do; let it return\n"
        safe += "-- should_repeat_migration, and put it into a piece of its own, with a line:  -- stackctl:repeat"
    return Found(f"{fact.how} of all rows of {fact.table}", safe, fact.table)


def _deleted_in_batches(table: str) -> str:
    return (  # shown, never run
        f"{SPLIT}-- stackctl:repeat\n"  # noqa: S608
        "WITH gone AS (\n"
        f"  DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} LIMIT 1000)) RETURNING 1\n)\n"
        "SELECT count(*) > 0 AS should_repeat_migration FROM gone;"
    )
