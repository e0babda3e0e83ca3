"""What a statement locks and how much work it does, read from its text: a forecast, made without a database."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from psycopg import sql

from stackctl.migrate.parser import facts as f
from stackctl.migrate.parser import statements
from stackctl.migrate.parser.token_reader import Name, NotUnderstood, Reader, tokens_of
from stackctl.migrate.parser.volatility import most_volatile
from stackctl.migrate.statement_text import with_schema
from stackctl.postgres import lexer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stackctl.migrate.files import Migration, Statement

Blocks = Literal["nothing", "schema changes", "writes", "reads and writes"]

# From the weakest to the strongest, as pg_locks writes them.
MODES = (
    "AccessShareLock", "RowShareLock", "RowExclusiveLock", "ShareUpdateExclusiveLock", "ShareLock",
    "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock",
)  # fmt: skip

_READ, _ROW, _WRITE, _GENTLE, _SHARE, _SHARE_ROW, _EXCLUSIVE, _ALL = MODES
_CONFLICTS = {
    _READ: MODES[7:], _ROW: MODES[6:], _WRITE: MODES[4:], _GENTLE: MODES[3:],
    _SHARE: (MODES[2], MODES[3], *MODES[5:]), _SHARE_ROW: MODES[2:], _EXCLUSIVE: MODES[1:], _ALL: MODES,
}  # fmt: skip
_BLOCKS: dict[str, Blocks] = {
    _READ: "nothing", _ROW: "nothing", _WRITE: "nothing", _GENTLE: "schema changes", _SHARE: "writes",
    _SHARE_ROW: "writes", _EXCLUSIVE: "writes", _ALL: "reads and writes",
}  # fmt: skip

REWRITES, MAY_REWRITE = "rewrites the table", "rewrites the table unless the new type stores the same"
SCANS, BUILDS, ROWS = "scans the table", "builds an index", "locks the rows it writes"

# Statements that hold no table up; what they touch is new, or is no table.
_QUIET = (
    "CREATE FUNCTION", "CREATE OR", "CREATE PROCEDURE", "CREATE TYPE", "CREATE DOMAIN", "CREATE SEQUENCE",
    "CREATE SCHEMA", "CREATE EXTENSION", "CREATE ROLE", "CREATE VIEW", "CREATE AGGREGATE", "CREATE COLLATION",
    "ALTER TYPE", "ALTER FUNCTION", "ALTER DEFAULT", "ALTER ROLE", "ALTER SCHEMA", "GRANT", "REVOKE",
    "SET", "RESET", "SHOW", "NOTIFY", "DROP FUNCTION", "DROP PROCEDURE", "DROP TYPE", "DROP DOMAIN", "DROP SEQUENCE",
    "DROP SCHEMA", "DROP EXTENSION", "DROP ROLE", "SAVEPOINT", "RELEASE", "VALUES",
)  # fmt: skip
_GENTLE_ALTERS = (
    ("VALIDATE",), ("SET", "("), ("RESET", "("), ("CLUSTER",),
)  # fmt: skip


@dataclass(frozen=True)
class Lock:
    """A relation, its lock, and what is done under it.

    `relation`: as people read it; None: one that the text does not name. `new`: the file itself made it, so nobody
    waits for it. `work`: '' for an instant.
    """

    relation: str | None
    mode: str
    work: str = ""
    new: bool = False
    qualified: str = ""

    @property
    def blocks(self) -> Blocks:
        return "nothing" if self.new else _BLOCKS[self.mode]

    @property
    def against(self) -> tuple[str, ...]:
        """The modes that it has to wait for."""
        return _CONFLICTS[self.mode]


@dataclass(frozen=True)
class Forecast:
    """The locks of one statement. `unknown`: what can't be told from the text, '' if nothing."""

    locks: tuple[Lock, ...]
    unknown: str = ""


def of_file(migration: Migration, schema: str, first_piece: int = 0) -> Iterator[tuple[Statement, bool, Forecast]]:
    """The statements of a migration as they are sent, from a piece on; whether outside a transaction; their locks."""
    made: set[Name] = set()
    for number, piece in enumerate(migration.pieces):
        for statement in piece.statements:
            text = with_schema(statement.sql, schema)
            found, names = _read(text, schema, made)
            made |= names
            if number >= first_piece:
                yield replace(statement, sql=text), piece.outside_transaction, found


def of(text: str, schema: str) -> Forecast:
    """The locks of one statement, the sentinel of the schema's name replaced."""
    return _read(text, schema, set())[0]


def _read(text: str, schema: str, made: set[Name]) -> tuple[Forecast, set[Name]]:
    facts = statements.read(text, schema).facts
    created = {fact.name for fact in facts if isinstance(fact, f.Created) and fact.kind == "table"}
    unknown = ""
    found: list[Lock] = []
    for fact in facts:
        match fact:
            case f.Unknown(what=what):
                unknown = what
            case f.Dynamic():
                unknown = "SQL that is put together when it runs"
            case _:
                found += _of_fact(fact, schema)
    try:
        if created:
            found += _of_new_table(text, schema)
        if not found and not unknown:
            found, unknown = _by_its_words(text, schema)
    except NotUnderstood as problem:
        unknown = problem.what
    new = {_identifier(name) for name in made | created}
    return Forecast(_strongest(replace(lock, new=lock.qualified in new) for lock in found), unknown), created


def _of_fact(fact: f.Fact, schema: str) -> list[Lock]:
    match fact:
        case f.IndexBuilt(table=table, concurrently=concurrently):
            return [_lock(table, _GENTLE if concurrently else _SHARE, BUILDS)]
        case f.Dropped(kind="index", name=name, concurrently=concurrently):
            mode = _GENTLE if concurrently else _ALL
            return [_lock(name, mode), Lock(f"the table of {name}", mode)]
        case f.Dropped(kind="table", name=name):
            return [_lock(name, _ALL), Lock(f"what {name} is bound to by foreign keys or as a partition", _ALL)]
        case f.Dropped(kind="view", name=name) | f.Truncated(table=name):
            return [_lock(name, _ALL)]
        case f.Renamed(kind="table" | "view", name=name):
            return [_lock(name, _ALL)]
        case f.Renamed(kind="index", name=name):
            return [_lock(name, _GENTLE)]
        case f.ColumnAdded(table=table, column=column):
            call, volatile = most_volatile(column.calls, None)
            if volatile or column.serial or column.identity or column.stored:
                work = REWRITES
            else:
                work = f"rewrites the table if {call}() is volatile" if volatile is None else ""
            return [_lock(table, _ALL, work)]
        case f.TypeChanged(table=table):
            return [_lock(table, _ALL, MAY_REWRITE)]
        case f.NotNullSet(table=table):
            return [_lock(table, _ALL, f"{SCANS} unless a check says it")]
        case f.ConstraintAdded(domain=False):
            return _of_constraint(fact, schema)
        case f.ConstraintValidated(table=table):
            return [_lock(table, _GENTLE, SCANS)]
        case f.ColumnDropped(table=table) | f.ColumnRenamed(table=table) | f.DefaultDropped(table=table):
            return [_lock(table, _ALL)]
        case f.ConstraintDropped(table=table):
            return [_lock(table, _ALL), Lock("the table that it refers to, if it is a foreign key", _ALL)]
        case f.Rewritten(table=table):
            return [_lock(table, _ALL, REWRITES)]
        case f.Compacted(table=table):
            return [_lock(table, _ALL, REWRITES) if table is not None else Lock("every table", _ALL, REWRITES)]
        case f.Reindexed(name=name, kind=kind, concurrently=concurrently):
            mode = _GENTLE if concurrently else _SHARE
            if name is None or kind not in ("table", "index"):
                return [Lock(f"every table of the {kind}", mode, BUILDS)]
            if kind == "table":
                return [_lock(name, mode, BUILDS)]
            return [_lock(name, mode if concurrently else _ALL, BUILDS), Lock(f"the table of {name}", mode)]
        case f.Refreshed(name=name, concurrently=concurrently):
            return [_lock(name, _EXCLUSIVE if concurrently else _ALL, "runs its query")]
        case f.PartitionMoved(how="attach", table=table, partition=partition):
            return [_lock(table, _GENTLE), _lock(partition, _ALL, f"{SCANS} unless a check says it")]
        case f.PartitionMoved(table=table, partition=partition, concurrently=concurrently):
            return [_lock(table, _GENTLE if concurrently else _ALL), _lock(partition, _ALL)]
        case f.RowsWritten(table=table, everything=everything):
            return [_lock(table, _WRITE, "locks every row" if everything else ROWS)]
        case _:
            return []


def _of_new_table(text: str, schema: str) -> list[Lock]:
    """A partition's parent is locked as if the partition were taken away."""
    tokens = tokens_of(text)
    said = lexer.words(tokens, len(tokens))
    at = next((n for n in range(len(said) - 1) if said[n : n + 2] == ["PARTITION", "OF"]), None)
    return [] if at is None else [_lock(Reader(tokens[at + 2 :], schema).name(), _ALL)]


def _of_constraint(fact: f.ConstraintAdded, schema: str) -> list[Lock]:
    constraint = fact.constraint
    if constraint.kind == "foreign key":
        work = "" if constraint.not_valid else SCANS
        other = _referenced(constraint.body, schema)
        return [_lock(fact.table, _SHARE_ROW, work), *([_lock(other, _SHARE_ROW)] if other else [])]
    if constraint.kind in ("check", "not null"):
        return [_lock(fact.table, _ALL, "" if constraint.not_valid else SCANS)]
    return [_lock(fact.table, _ALL, "" if constraint.using_index else BUILDS)]


def _referenced(body: str, schema: str) -> Name | None:
    tokens = tokens_of(body)
    for n, token in enumerate(tokens):
        if token.text.upper() == "REFERENCES":
            return Reader(tokens[n + 1 :], schema).name()
    return None


def _by_its_words(text: str, schema: str) -> tuple[list[Lock], str]:
    """A statement that rules have no question about; raises NotUnderstood."""
    tokens = tokens_of(text)
    said = lexer.words(tokens, len(tokens))
    reader = Reader(tokens, schema)
    if said[0] == "LOCK":
        reader.accept("LOCK")
        reader.accept("TABLE")
        reader.accept("ONLY")
        name = reader.name()
        mode = (
            "".join(word.title() for word in said[said.index("IN") + 1 : -1]) if "MODE" in said else "AccessExclusive"
        )
        return [_lock(name, f"{mode}Lock")], "" if "," not in said else "the tables after the first"
    if said[0] == "INSERT" or said[0] == "MERGE":
        reader.accept(said[0], "INTO")
        return [_lock(reader.name(), _WRITE, ROWS)], ""
    if said[0] in ("SELECT", "WITH", "TABLE", "("):
        return [], "reads; what the functions it calls do is not seen"
    if said[0] == "DO":
        return [], "" if "EXECUTE" not in text.upper() else "SQL that is put together when it runs"
    if reader.accept("ALTER", "TABLE"):
        reader.accept("IF", "EXISTS")
        reader.accept("ONLY")
        table = reader.name()
        rest = tuple(token.text.upper() for token in reader.rest)
        if any(rest[: len(words)] == words for words in _GENTLE_ALTERS) or "STATISTICS" in rest[:5]:
            return [_lock(table, _GENTLE)], ""
        trigger = rest[:2] in (("ENABLE", "TRIGGER"), ("DISABLE", "TRIGGER"))
        return [_lock(table, _SHARE_ROW if trigger else _ALL)], ""
    if said[0] == "CREATE" and "TRIGGER" in said[:5] and "ON" in said:
        return [_lock(Reader(tokens[said.index("ON") + 1 :], schema).name(), _SHARE_ROW)], ""
    if said[0] in ("CREATE", "DROP", "ALTER") and said[1] in ("POLICY", "RULE", "TRIGGER") and "ON" in said:
        return [_lock(Reader(tokens[said.index("ON") + 1 :], schema).name(), _ALL)], ""
    if said[0] == "COMMENT" and said[2] in ("TABLE", "COLUMN"):
        reader.accept("COMMENT", "ON", said[2])
        name = reader.name() if said[2] == "TABLE" else None
        return [_lock(name, _GENTLE) if name else Lock("the column's table", _GENTLE)], ""
    if said[0] in ("VACUUM", "ANALYZE"):
        return [Lock("the tables it names", _GENTLE, SCANS)], ""
    if said[:2] == ["CREATE", "STATISTICS"] and "FROM" in said:
        return [_lock(Reader(tokens[said.index("FROM") + 1 :], schema).name(), _GENTLE)], ""
    if reader.accept("ALTER", "SEQUENCE"):
        reader.accept("IF", "EXISTS")
        return [_lock(reader.name(), _SHARE_ROW)], ""  # nextval waits as well
    if said[0] == "CREATE" and "VIEW" in said[:5] and "REPLACE" in said[:3]:
        return [_lock(Reader(tokens[said.index("VIEW") + 1 :], schema).name(), _ALL)], ""
    if " ".join(said[:2]) in _QUIET or said[0] in _QUIET or (said[:2] == ["CREATE", "TABLE"]):
        return [], ""
    return [], "not known"


def _lock(name: Name, mode: str, work: str = "") -> Lock:
    return Lock(str(name), mode, work, qualified=_identifier(name))


def _identifier(name: Name) -> str:
    return sql.Identifier(name.schema, name.name).as_string()


def _strongest(found: Iterable[Lock]) -> tuple[Lock, ...]:
    """One lock a relation: the strongest, with all that is done under it."""
    merged: dict[tuple[str | None, str], Lock] = {}
    for lock in found:
        key = (lock.relation, lock.qualified)
        known = merged.get(key)
        if known is None:
            merged[key] = lock
            continue
        works = [work for work in dict.fromkeys((known.work, lock.work)) if work]
        mode = max(known.mode, lock.mode, key=MODES.index)
        merged[key] = replace(known, mode=mode, work=", ".join(works))
    return tuple(sorted(merged.values(), key=lambda lock: -MODES.index(lock.mode)))
