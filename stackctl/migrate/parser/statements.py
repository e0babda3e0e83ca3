"""The text of one statement → its facts."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from stackctl.migrate.parser import definitions, plpgsql, queries
from stackctl.migrate.parser.alter import alter
from stackctl.migrate.parser.facts import (
    ColumnAdded,
    Compacted,
    ConstraintAdded,
    Created,
    Dropped,
    Dynamic,
    Fact,
    IndexBuilt,
    Locked,
    NoTransaction,
    Refreshed,
    Reindexed,
    StatementFacts,
    TransactionControl,
    Truncated,
    Unknown,
)
from stackctl.migrate.parser.token_reader import NotUnderstood, Reader, levels, literal, split, text_of, tokens_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stackctl.postgres.lexer import Token

_QUERIES = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "VALUES", "TABLE", "MERGE")
_TRANSACTIONS = ("BEGIN", "COMMIT", "END", "ROLLBACK", "ABORT", "START TRANSACTION", "PREPARE TRANSACTION")
# They change neither a table's shape nor its rows, and lock nothing for long.
_OTHERS = (
    "COMMENT ON", "GRANT", "REVOKE", "SET", "RESET", "SHOW", "ANALYZE", "ANALYSE", "NOTIFY", "LISTEN", "UNLISTEN",
    "SECURITY LABEL", "SAVEPOINT", "RELEASE", "DISCARD", "CHECKPOINT", "IMPORT FOREIGN SCHEMA", "REASSIGN OWNED",
    "COPY", "EXPLAIN",
)  # fmt: skip
_CREATED = {
    "VIEW": "view", "RECURSIVE VIEW": "view", "TYPE": "type", "DOMAIN": "type", "SEQUENCE": "sequence",
    "SCHEMA": "schema", "EXTENSION": "extension", "FUNCTION": "function", "PROCEDURE": "function",
    "AGGREGATE": "function", "FOREIGN TABLE": "table", "MATERIALIZED VIEW": "view",
}  # fmt: skip
_CREATED_OTHERS = (
    "TRIGGER", "CONSTRAINT TRIGGER", "EVENT TRIGGER", "POLICY", "ROLE", "USER MAPPING", "USER", "GROUP", "CAST",
    "OPERATOR", "RULE", "STATISTICS", "PUBLICATION", "COLLATION", "SERVER", "FOREIGN DATA WRAPPER", "TEXT SEARCH",
    "LANGUAGE", "TRUSTED LANGUAGE", "ACCESS METHOD", "TRANSFORM", "CONVERSION",
)  # fmt: skip
_DROPPED = {
    "TABLE": "table", "FOREIGN TABLE": "table", "VIEW": "view", "MATERIALIZED VIEW": "view", "INDEX": "index",
    "FUNCTION": "function", "PROCEDURE": "function", "ROUTINE": "function", "AGGREGATE": "function", "TYPE": "type",
    "DOMAIN": "type", "SEQUENCE": "sequence", "SCHEMA": "schema", "EXTENSION": "extension",
}  # fmt: skip
_DROPPED_OTHERS = (
    "TRIGGER", "EVENT TRIGGER", "POLICY", "ROLE", "USER MAPPING", "USER", "GROUP", "CAST", "OPERATOR", "RULE",
    "STATISTICS", "PUBLICATION", "COLLATION", "SERVER", "FOREIGN DATA WRAPPER", "TEXT SEARCH", "LANGUAGE",
    "PROCEDURAL LANGUAGE", "ACCESS METHOD", "TRANSFORM", "CONVERSION",
)  # fmt: skip
_OUTSIDE = ("CREATE DATABASE", "DROP DATABASE", "CREATE TABLESPACE", "DROP TABLESPACE", "CREATE SUBSCRIPTION",
            "DROP SUBSCRIPTION")  # fmt: skip


def read(text: str, schema: str) -> StatementFacts:
    """What the statement does. What can't be classified is an Unknown among the facts.

    `schema`: the one that names without a schema, and the sentinel of the schema's name, stand for.
    """
    tokens = tokens_of(text)
    return _read(tokens, text, schema)


def _read(tokens: Sequence[Token], text: str, schema: str) -> StatementFacts:
    reader = Reader(tokens, schema)
    start = reader.offset
    strings: set[str] = set()
    if reader.word() != "COMMENT":
        strings = {literal(token) for token in tokens if token.kind == "quoted" and token.text.endswith("'")}
    facts: list[Fact] = []
    try:
        for fact in _statement(reader, text, schema):
            if isinstance(fact, StatementFacts):
                facts.extend(fact.facts)
                strings |= fact.strings
            else:
                facts.append(fact)
    except NotUnderstood as problem:
        facts.append(Unknown(problem.what, at=problem.at))
    return StatementFacts(tuple(_placed(fact, start, text) for fact in facts), frozenset(strings))


def _placed(fact: Fact, start: int, text: str) -> Fact:
    fact = replace(fact, text=fact.text or text)
    return fact if fact.at else replace(fact, at=start)


def _statement(reader: Reader, text: str, schema: str) -> Iterator[Fact | StatementFacts]:
    if reader.word() in _QUERIES or reader.text() == "(":
        yield from queries.read(text, schema)
    elif how := reader.one_of(*_OUTSIDE):
        yield NoTransaction(how)
    elif reader.accept("ALTER"):
        yield from alter(reader)
    elif reader.accept("CREATE"):
        yield from _create(reader)
    elif reader.accept("DROP"):
        yield from _drop(reader)
    elif reader.accept("TRUNCATE"):
        yield from _truncate(reader)
    elif reader.accept("REINDEX"):
        yield from _reindex(reader)
    elif reader.accept("VACUUM"):
        yield from _vacuum(reader)
    elif reader.accept("CLUSTER"):
        yield from _cluster(reader)
    elif reader.accept("REFRESH", "MATERIALIZED", "VIEW"):
        concurrently = reader.accept("CONCURRENTLY")
        yield Refreshed(reader.name(), concurrently)
    elif reader.accept("LOCK"):
        reader.accept("TABLE")
        for part in split(reader.rest):
            one = reader.part(part)
            one.accept("ONLY")
            yield Locked(one.name())
    elif reader.accept("DO"):
        yield from _do(reader, schema)
    elif (word := reader.one_of(*_TRANSACTIONS)) and not (
        word == "ROLLBACK" and "TO" in (reader.word(), reader.word(1))
    ):
        yield TransactionControl(word)
    elif not word and not reader.one_of(*_OTHERS):
        raise reader.lost("not a statement that is known")


# -- CREATE


def _create(reader: Reader) -> Iterator[Fact]:
    replaces = reader.accept("OR", "REPLACE")
    unique = reader.accept("UNIQUE")
    if reader.accept("INDEX"):
        yield from _index(reader)
        return
    if unique:
        raise reader.lost("not a CREATE that is known")
    reader.one_of("GLOBAL", "LOCAL")
    reader.one_of("TEMPORARY", "TEMP", "UNLOGGED")
    if reader.accept("TABLE"):
        yield from _table(reader)
    elif kind := reader.one_of(*_CREATED):
        reader.accept("IF", "NOT", "EXISTS")
        if kind == "SCHEMA" and reader.accept("AUTHORIZATION"):
            return
        name = reader.name()
        if replaces:  # it may have been there before
            return
        arguments = None
        if _CREATED[kind] == "function":
            arguments = tuple(_argument(part) for part in split(reader.brackets()) if part)
        yield Created(_CREATED[kind], name, arguments)
    elif not reader.one_of(*_CREATED_OTHERS) and not (replaces and reader.one_of("LANGUAGE")):
        raise reader.lost("not a CREATE that is known")


def _index(reader: Reader) -> Iterator[Fact]:
    concurrently = reader.accept("CONCURRENTLY")
    reader.accept("IF", "NOT", "EXISTS")
    name = None if reader.word() == "ON" else reader.name()
    reader.expect("ON")
    only = reader.accept("ONLY")
    table = reader.name()
    if reader.accept("USING"):
        reader.identifier()
    reader.brackets()
    if concurrently:
        yield NoTransaction("CREATE INDEX CONCURRENTLY")
    # An index lives in its table's schema.
    found = name and table.beside(name.name)
    yield IndexBuilt(found, table, concurrently, only)
    if found:
        yield Created("index", found)


def _table(reader: Reader) -> Iterator[Fact]:
    reader.accept("IF", "NOT", "EXISTS")
    name = reader.name()
    is_partition = reader.accept("PARTITION", "OF")
    if is_partition:
        reader.name()
    is_typed = reader.accept("OF")
    if is_typed:
        reader.name()
    elements = split(reader.brackets()) if reader.text() == "(" else []
    words = [token.text.upper() for token, depth in levels(reader.rest) if token.kind == "word" and depth == 0]
    partitioned = ("PARTITION", "BY") in pairwise(words)
    yield Created("table", name, partitioned=partitioned)
    if not elements and not (words or is_partition or is_typed):
        raise reader.lost("a table without columns")
    if is_partition or is_typed or (elements and all(len(element) == 1 for element in elements)):
        return  # CREATE TABLE … (names) AS SELECT …
    facts: list[Fact] = []
    for element in elements:
        part = reader.part(element)
        if not element or part.accept("LIKE"):
            continue
        at, text = part.offset, text_of(element)
        if definitions.is_definition(part):
            facts.append(ConstraintAdded(name, definitions.table_constraint(part, name), at=at, text=text))
            continue
        column, constraints = definitions.column_of(part, name, added=False, text=text)
        facts += [ColumnAdded(name, column, at=at, text=text), *constraints]
    keys = [
        f.constraint.columns for f in facts if isinstance(f, ConstraintAdded) and f.constraint.kind == "primary key"
    ]
    for fact in facts:
        if isinstance(fact, ColumnAdded) and (fact.column.name,) in keys:
            fact = replace(fact, column=replace(fact.column, key=True))
        yield fact


def _argument(tokens: Sequence[Token]) -> str:
    """One argument of a routine, as far as names of types tell two routines apart."""
    for n, token in enumerate(tokens):
        if token.text.upper() == "DEFAULT" or token.text == "=":
            tokens = tokens[:n]
            break
    if tokens and tokens[0].text.upper() in ("IN", "OUT", "INOUT", "VARIADIC"):
        tokens = tokens[1:]
    for first in range(len(tokens)):  # the longest tail that names a type; before it stands the argument's name
        known = definitions.type_of(tokens[first:]).base
        if first == len(tokens) - 1 or known != text_of(tokens[first:]).lower() or known == "double precision":
            return known
    return ""


# -- DROP and others


def _drop(reader: Reader) -> Iterator[Fact]:
    kind = reader.one_of(*_DROPPED)
    if not kind:
        if not reader.one_of(*_DROPPED_OTHERS, "OWNED BY"):
            raise reader.lost("not a DROP that is known")
        return
    concurrently = kind == "INDEX" and reader.accept("CONCURRENTLY")
    reader.accept("IF", "EXISTS")
    if concurrently:
        yield NoTransaction("DROP INDEX CONCURRENTLY")
    for part in split(reader.rest):
        one = reader.part(part)
        at, name = one.offset, one.name()
        arguments = None
        if one.text() == "(":
            arguments = tuple(_argument(argument) for argument in split(one.brackets()) if argument)
        one.one_of("CASCADE", "RESTRICT")
        one.finish()
        yield Dropped(_DROPPED[kind], name, concurrently, arguments, at=at, text=f"DROP {kind} {text_of(part)}")


def _truncate(reader: Reader) -> Iterator[Fact]:
    reader.accept("TABLE")
    cascade = any(token.text.upper() == "CASCADE" for token in reader.rest)
    for part in split(reader.rest):
        one = reader.part(part)
        one.accept("ONLY")
        at = one.offset
        yield Truncated(one.name(), cascade, at=at)


def _reindex(reader: Reader) -> Iterator[Fact]:
    options = {token.text.upper() for token in reader.brackets()} if reader.text() == "(" else set[str]()
    kind = reader.one_of("INDEX", "TABLE", "SCHEMA", "DATABASE", "SYSTEM")
    if not kind:
        raise reader.lost("not a REINDEX that is known")
    concurrently = reader.accept("CONCURRENTLY") or "CONCURRENTLY" in options
    name = None if reader.done else reader.name()
    if concurrently or kind in ("SCHEMA", "DATABASE", "SYSTEM"):
        yield NoTransaction(f"REINDEX {kind}" + " CONCURRENTLY" * concurrently)
    yield Reindexed(kind.lower(), name, concurrently)


def _vacuum(reader: Reader) -> Iterator[Fact]:
    options = list(reader.brackets()) if reader.text() == "(" else []
    full = any(
        text_of(part).upper().split()[:1] == ["FULL"] and text_of(part).upper().split()[1:] not in (["FALSE"], ["OFF"])
        for part in split(options)
    )
    while word := reader.one_of("FULL", "FREEZE", "VERBOSE", "ANALYZE", "ANALYSE"):
        full |= word == "FULL"
    yield NoTransaction("VACUUM")
    if not full:
        return
    if reader.done:
        yield Compacted("VACUUM FULL", None)
    for part in split(reader.rest) if not reader.done else ():
        yield Compacted("VACUUM FULL", reader.part(part).name())


def _cluster(reader: Reader) -> Iterator[Fact]:
    if reader.text() == "(":
        reader.brackets()
    reader.accept("VERBOSE")
    if reader.done:
        yield NoTransaction("CLUSTER")
        yield Compacted("CLUSTER", None)
        return
    name = reader.name()
    if reader.accept("ON"):  # CLUSTER index ON table
        name = reader.name()
    yield Compacted("CLUSTER", name)


def _do(reader: Reader, schema: str) -> Iterator[Fact | StatementFacts]:
    body: Token | None = None
    language = "plpgsql"
    while not reader.done:
        if reader.accept("LANGUAGE"):
            token = reader.take()
            language = (literal(token) if "'" in token.text else token.text).lower()
        else:
            body = reader.take()
    if body is None or body.kind != "quoted" or language != "plpgsql":
        raise reader.lost(f"a DO block in {language}")
    content = literal(body)
    # Where quotes are doubled, places inside do not count: a finding then stands at the block.
    shift = body.text.index(content) if content in body.text else None
    for embedded in plpgsql.statements(content):
        at = body.start if shift is None else body.start + shift + embedded.at
        if embedded.dynamic:
            yield Dynamic(at=at, text=embedded.text)
            continue
        inner = _read(tokens_of(embedded.text), embedded.text, schema)
        exact = embedded.exact and shift is not None
        for fact in inner.facts:
            if isinstance(fact, TransactionControl):
                fact = replace(fact, in_block=True)
            yield replace(fact, at=at + fact.at if exact else at)
        yield StatementFacts((), inner.strings)
