"""What a statement locks and how much work it does, read from its text: a forecast, made without a database."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from psycopg import sql

from stackctl.migrate.lock_modes import BLOCKS, CONFLICTS, MODES, Blocks
from stackctl.migrate.parser import facts as f
from stackctl.migrate.parser import statements
from stackctl.migrate.parser.token_reader import NotUnderstood, QualifiedName, TokenReader, tokenize
from stackctl.migrate.parser.volatility import find_most_volatile
from stackctl.migrate.statement_text import insert_schema
from stackctl.postgres import lexer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stackctl.migrate.files import Migration, Statement

_ROW_EXCLUSIVE, _SHARE_UPDATE, _SHARE, _SHARE_ROW, _EXCLUSIVE, _ACCESS_EXCLUSIVE = MODES[2:]

REWRITES, MAY_REWRITE = "rewrites the table", "rewrites the table unless the new type stores the same"
SCANS, BUILDS, ROWS = "scans the table", "builds an index", "locks the rows it writes"

# Statements that hold no table up; what they touch is new, or is no table.
_WITHOUT_LOCKS = (
    "CREATE FUNCTION", "CREATE OR", "CREATE PROCEDURE", "CREATE TYPE", "CREATE DOMAIN", "CREATE SEQUENCE",
    "CREATE SCHEMA", "CREATE EXTENSION", "CREATE ROLE", "CREATE VIEW", "CREATE AGGREGATE", "CREATE COLLATION",
    "ALTER TYPE", "ALTER FUNCTION", "ALTER DEFAULT", "ALTER ROLE", "ALTER SCHEMA", "GRANT", "REVOKE",
    "SET", "RESET", "SHOW", "NOTIFY", "DROP FUNCTION", "DROP PROCEDURE", "DROP TYPE", "DROP DOMAIN", "DROP SEQUENCE",
    "DROP SCHEMA", "DROP EXTENSION", "DROP ROLE", "SAVEPOINT", "RELEASE", "VALUES",
)  # fmt: skip
_SHARE_UPDATE_ALTERS = (
    ("VALIDATE",), ("SET", "("), ("RESET", "("), ("CLUSTER",),
)  # fmt: skip


@dataclass(frozen=True)
class ForecastLock:
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
        return "nothing" if self.new else BLOCKS[self.mode]

    @property
    def against(self) -> tuple[str, ...]:
        """The modes that it has to wait for."""
        return CONFLICTS[self.mode]


@dataclass(frozen=True)
class LockForecast:
    """The locks of one statement. `unknown`: what can't be told from the text, '' if nothing."""

    locks: tuple[ForecastLock, ...]
    unknown: str = ""


def forecast_file(
    migration: Migration, schema: str, first_piece: int = 0
) -> Iterator[tuple[Statement, bool, LockForecast]]:
    """The statements of a migration as they are sent, from a piece on; whether outside a transaction; their locks."""
    made: set[QualifiedName] = set()
    for number, piece in enumerate(migration.pieces):
        for statement in piece.statements:
            text = insert_schema(statement.sql, schema)
            found, names = _forecast(text, schema, made)
            made |= names
            if number >= first_piece:
                yield replace(statement, sql=text), piece.outside_transaction, found


def forecast_statement(text: str, schema: str) -> LockForecast:
    """The locks of one statement, the sentinel of the schema's name replaced."""
    return _forecast(text, schema, set())[0]


def _forecast(text: str, schema: str, made: set[QualifiedName]) -> tuple[LockForecast, set[QualifiedName]]:
    facts = statements.parse_statement(text, schema).facts
    created = {fact.name for fact in facts if isinstance(fact, f.ObjectCreated) and fact.kind == "table"}
    unknown = ""
    found: list[ForecastLock] = []
    for fact in facts:
        match fact:
            case f.UnknownStatement(what=what):
                unknown = what
            case f.DynamicSql():
                unknown = "SQL that is put together when it runs"
            case _:
                found += _find_fact_locks(fact, schema)
    try:
        if created:
            found += _find_parent_lock(text, schema)
        if not found and not unknown:
            found, unknown = _find_keyword_locks(text, schema)
    except NotUnderstood as problem:
        unknown = problem.what
    new = {_quote(name) for name in made | created}
    return LockForecast(_keep_strongest(replace(lock, new=lock.qualified in new) for lock in found), unknown), created


def _find_fact_locks(fact: f.Fact, schema: str) -> list[ForecastLock]:
    match fact:
        case f.IndexBuilt(table=table, concurrently=concurrently):
            return [_make_lock(table, _SHARE_UPDATE if concurrently else _SHARE, BUILDS)]
        case f.ObjectDropped(kind="index", name=name, concurrently=concurrently):
            mode = _SHARE_UPDATE if concurrently else _ACCESS_EXCLUSIVE
            return [_make_lock(name, mode), ForecastLock(f"the table of {name}", mode)]
        case f.ObjectDropped(kind="table", name=name):
            return [
                _make_lock(name, _ACCESS_EXCLUSIVE),
                ForecastLock(f"what {name} is bound to by foreign keys or as a partition", _ACCESS_EXCLUSIVE),
            ]
        case f.ObjectDropped(kind="view", name=name) | f.TableTruncated(table=name):
            return [_make_lock(name, _ACCESS_EXCLUSIVE)]
        case f.ObjectRenamed(kind="table" | "view", name=name):
            return [_make_lock(name, _ACCESS_EXCLUSIVE)]
        case f.ObjectRenamed(kind="index", name=name):
            return [_make_lock(name, _SHARE_UPDATE)]
        case f.ColumnAdded(table=table, column=column):
            call, volatile = find_most_volatile(column.calls)
            if volatile or column.serial or column.identity or column.stored:
                work = REWRITES
            else:
                work = f"rewrites the table if {call}() is volatile" if volatile is None else ""
            return [_make_lock(table, _ACCESS_EXCLUSIVE, work)]
        case f.TypeChanged(table=table):
            return [_make_lock(table, _ACCESS_EXCLUSIVE, MAY_REWRITE)]
        case f.NotNullSet(table=table):
            return [_make_lock(table, _ACCESS_EXCLUSIVE, f"{SCANS} unless a check says it")]
        case f.ConstraintAdded(domain=False):
            return _find_constraint_locks(fact, schema)
        case f.ConstraintValidated(table=table):
            return [_make_lock(table, _SHARE_UPDATE, SCANS)]
        case f.ColumnDropped(table=table) | f.ColumnRenamed(table=table) | f.DefaultDropped(table=table):
            return [_make_lock(table, _ACCESS_EXCLUSIVE)]
        case f.ConstraintDropped(table=table):
            return [
                _make_lock(table, _ACCESS_EXCLUSIVE),
                ForecastLock("the table that it refers to, if it is a foreign key", _ACCESS_EXCLUSIVE),
            ]
        case f.TableRewritten(table=table):
            return [_make_lock(table, _ACCESS_EXCLUSIVE, REWRITES)]
        case f.TableCompacted(table=table):
            return [
                _make_lock(table, _ACCESS_EXCLUSIVE, REWRITES)
                if table is not None
                else ForecastLock("every table", _ACCESS_EXCLUSIVE, REWRITES)
            ]
        case f.IndexesRebuilt(name=name, kind=kind, concurrently=concurrently):
            mode = _SHARE_UPDATE if concurrently else _SHARE
            if name is None or kind not in ("table", "index"):
                return [ForecastLock(f"every table of the {kind}", mode, BUILDS)]
            if kind == "table":
                return [_make_lock(name, mode, BUILDS)]
            return [
                _make_lock(name, mode if concurrently else _ACCESS_EXCLUSIVE, BUILDS),
                ForecastLock(f"the table of {name}", mode),
            ]
        case f.ViewRefreshed(name=name, concurrently=concurrently):
            return [_make_lock(name, _EXCLUSIVE if concurrently else _ACCESS_EXCLUSIVE, "runs its query")]
        case f.PartitionMoved(how="attach", table=table, partition=partition):
            return [
                _make_lock(table, _SHARE_UPDATE),
                _make_lock(partition, _ACCESS_EXCLUSIVE, f"{SCANS} unless a check says it"),
            ]
        case f.PartitionMoved(table=table, partition=partition, concurrently=concurrently):
            return [
                _make_lock(table, _SHARE_UPDATE if concurrently else _ACCESS_EXCLUSIVE),
                _make_lock(partition, _ACCESS_EXCLUSIVE),
            ]
        case f.RowsWritten(table=table, everything=everything):
            return [_make_lock(table, _ROW_EXCLUSIVE, "locks every row" if everything else ROWS)]
        case _:
            return []


def _find_parent_lock(text: str, schema: str) -> list[ForecastLock]:
    """A partition's parent is locked as if the partition were taken away."""
    tokens = tokenize(text)
    said = lexer.first_words(tokens, len(tokens))
    at = next((n for n in range(len(said) - 1) if said[n : n + 2] == ["PARTITION", "OF"]), None)
    return [] if at is None else [_make_lock(TokenReader(tokens[at + 2 :], schema).read_name(), _ACCESS_EXCLUSIVE)]


def _find_constraint_locks(fact: f.ConstraintAdded, schema: str) -> list[ForecastLock]:
    constraint = fact.constraint
    if constraint.kind == "foreign key":
        work = "" if constraint.not_valid else SCANS
        other = _find_referenced(constraint.body, schema)
        return [_make_lock(fact.table, _SHARE_ROW, work), *([_make_lock(other, _SHARE_ROW)] if other else [])]
    if constraint.kind in ("check", "not null"):
        return [_make_lock(fact.table, _ACCESS_EXCLUSIVE, "" if constraint.not_valid else SCANS)]
    return [_make_lock(fact.table, _ACCESS_EXCLUSIVE, "" if constraint.using_index else BUILDS)]


def _find_referenced(body: str, schema: str) -> QualifiedName | None:
    tokens = tokenize(body)
    for n, token in enumerate(tokens):
        if token.text.upper() == "REFERENCES":
            return TokenReader(tokens[n + 1 :], schema).read_name()
    return None


def _find_keyword_locks(text: str, schema: str) -> tuple[list[ForecastLock], str]:
    """A statement that rules have no question about; raises NotUnderstood."""
    tokens = tokenize(text)
    said = lexer.first_words(tokens, len(tokens))
    reader = TokenReader(tokens, schema)
    if said[0] == "LOCK":
        reader.accept("LOCK")
        reader.accept("TABLE")
        reader.accept("ONLY")
        name = reader.read_name()
        mode = (
            "".join(word.title() for word in said[said.index("IN") + 1 : -1]) if "MODE" in said else "AccessExclusive"
        )
        return [_make_lock(name, f"{mode}Lock")], "" if "," not in said else "the tables after the first"
    if said[0] == "INSERT" or said[0] == "MERGE":
        reader.accept(said[0], "INTO")
        return [_make_lock(reader.read_name(), _ROW_EXCLUSIVE, ROWS)], ""
    if said[0] in ("SELECT", "WITH", "TABLE", "("):
        return [], "reads; what the functions it calls do is not seen"
    if said[0] == "DO":
        return [], "" if "EXECUTE" not in text.upper() else "SQL that is put together when it runs"
    if reader.accept("ALTER", "TABLE"):
        reader.accept("IF", "EXISTS")
        reader.accept("ONLY")
        table = reader.read_name()
        rest = tuple(token.text.upper() for token in reader.rest)
        if any(rest[: len(words)] == words for words in _SHARE_UPDATE_ALTERS) or "STATISTICS" in rest[:5]:
            return [_make_lock(table, _SHARE_UPDATE)], ""
        trigger = rest[:2] in (("ENABLE", "TRIGGER"), ("DISABLE", "TRIGGER"))
        return [_make_lock(table, _SHARE_ROW if trigger else _ACCESS_EXCLUSIVE)], ""
    if said[0] == "CREATE" and "TRIGGER" in said[:5] and "ON" in said:
        return [_make_lock(TokenReader(tokens[said.index("ON") + 1 :], schema).read_name(), _SHARE_ROW)], ""
    if said[0] in ("CREATE", "DROP", "ALTER") and said[1] in ("POLICY", "RULE", "TRIGGER") and "ON" in said:
        return [_make_lock(TokenReader(tokens[said.index("ON") + 1 :], schema).read_name(), _ACCESS_EXCLUSIVE)], ""
    if said[0] == "COMMENT" and said[2] in ("TABLE", "COLUMN"):
        reader.accept("COMMENT", "ON", said[2])
        name = reader.read_name() if said[2] == "TABLE" else None
        return [_make_lock(name, _SHARE_UPDATE) if name else ForecastLock("the column's table", _SHARE_UPDATE)], ""
    if said[0] in ("VACUUM", "ANALYZE"):
        return [ForecastLock("the tables it names", _SHARE_UPDATE, SCANS)], ""
    if said[:2] == ["CREATE", "STATISTICS"] and "FROM" in said:
        return [_make_lock(TokenReader(tokens[said.index("FROM") + 1 :], schema).read_name(), _SHARE_UPDATE)], ""
    if reader.accept("ALTER", "SEQUENCE"):
        reader.accept("IF", "EXISTS")
        return [_make_lock(reader.read_name(), _SHARE_ROW)], ""  # nextval waits as well
    if said[0] == "CREATE" and "VIEW" in said[:5] and "REPLACE" in said[:3]:
        return [_make_lock(TokenReader(tokens[said.index("VIEW") + 1 :], schema).read_name(), _ACCESS_EXCLUSIVE)], ""
    if " ".join(said[:2]) in _WITHOUT_LOCKS or said[0] in _WITHOUT_LOCKS or (said[:2] == ["CREATE", "TABLE"]):
        return [], ""
    return [], "not known"


def _make_lock(name: QualifiedName, mode: str, work: str = "") -> ForecastLock:
    return ForecastLock(str(name), mode, work, qualified=_quote(name))


def _quote(name: QualifiedName) -> str:
    return sql.Identifier(name.schema, name.name).as_string()


def _keep_strongest(found: Iterable[ForecastLock]) -> tuple[ForecastLock, ...]:
    """One lock a relation: the strongest, with all that is done under it."""
    merged: dict[tuple[str | None, str], ForecastLock] = {}
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
