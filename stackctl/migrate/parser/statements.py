"""The text of one statement → its facts."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from stackctl.migrate.parser import definitions, plain_queries, plpgsql
from stackctl.migrate.parser.alter import parse_alter
from stackctl.migrate.parser.facts import (
    ColumnAdded,
    ConstraintAdded,
    DynamicSql,
    Fact,
    IndexBuilt,
    IndexesRebuilt,
    ObjectCreated,
    ObjectDropped,
    ObjectReplaced,
    OwnedDropped,
    PolicyChanged,
    RightsRevoked,
    RoutineDefined,
    StatementFacts,
    TableCompacted,
    TableLocked,
    TableTruncated,
    TransactionControl,
    TransactionRefused,
    TriggerChanged,
    UnknownStatement,
    ViewRefreshed,
)
from stackctl.migrate.parser.token_reader import (
    NotUnderstood,
    TokenReader,
    fold_identifier,
    iter_with_depth,
    join_tokens,
    split_tokens,
    tokenize,
    unquote_string,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stackctl.migrate.parser.token_reader import QualifiedName
    from stackctl.postgres.lexer import Token

_QUERIES = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "VALUES", "TABLE", "MERGE")
_TRANSACTIONS = ("BEGIN", "COMMIT", "END", "ROLLBACK", "ABORT", "START TRANSACTION", "PREPARE TRANSACTION")
# They change neither a table's shape nor its rows, and lock nothing for long.
_OTHERS = (
    "COMMENT ON", "GRANT", "SET", "RESET", "SHOW", "ANALYZE", "ANALYSE", "NOTIFY", "LISTEN", "UNLISTEN",
    "SECURITY LABEL", "SAVEPOINT", "RELEASE", "DISCARD", "CHECKPOINT", "IMPORT FOREIGN SCHEMA", "REASSIGN OWNED",
    "COPY", "EXPLAIN",
)  # fmt: skip
_CREATED = {
    "VIEW": "view", "RECURSIVE VIEW": "view", "TYPE": "type", "DOMAIN": "type", "SEQUENCE": "sequence",
    "SCHEMA": "schema", "EXTENSION": "extension", "FUNCTION": "function", "PROCEDURE": "function",
    "AGGREGATE": "function", "FOREIGN TABLE": "table", "MATERIALIZED VIEW": "view", "ROLE": "role",
    "USER MAPPING": "user mapping", "USER": "role", "GROUP": "role",
}  # fmt: skip
_CREATED_OTHERS = (
    "EVENT TRIGGER", "CAST", "OPERATOR", "RULE", "STATISTICS", "PUBLICATION", "COLLATION", "SERVER",
    "FOREIGN DATA WRAPPER", "TEXT SEARCH",
    "LANGUAGE", "TRUSTED LANGUAGE", "ACCESS METHOD", "TRANSFORM", "CONVERSION",
)  # fmt: skip
_DROPPED = {
    "TABLE": "table", "FOREIGN TABLE": "table", "VIEW": "view", "MATERIALIZED VIEW": "view", "INDEX": "index",
    "FUNCTION": "function", "PROCEDURE": "function", "ROUTINE": "function", "AGGREGATE": "function", "TYPE": "type",
    "DOMAIN": "type", "SEQUENCE": "sequence", "SCHEMA": "schema", "EXTENSION": "extension", "ROLE": "role",
    "USER MAPPING": "user mapping", "USER": "role", "GROUP": "role", "DATABASE": "database",
}  # fmt: skip
_DROPPED_OTHERS = (
    "EVENT TRIGGER", "CAST", "OPERATOR", "RULE", "STATISTICS", "PUBLICATION", "COLLATION", "SERVER",
    "FOREIGN DATA WRAPPER", "TEXT SEARCH", "LANGUAGE",
    "PROCEDURAL LANGUAGE", "ACCESS METHOD", "TRANSFORM", "CONVERSION",
)  # fmt: skip
_OUTSIDE = ("CREATE DATABASE", "CREATE TABLESPACE", "DROP TABLESPACE", "CREATE SUBSCRIPTION",
            "DROP SUBSCRIPTION")  # fmt: skip

_GRANTED = {
    "TABLE": "table", "SEQUENCE": "sequence", "FUNCTION": "function", "PROCEDURE": "function", "ROUTINE": "function",
    "SCHEMA": "schema", "TYPE": "type", "DOMAIN": "type", "DATABASE": "database", "LANGUAGE": "language",
    "LARGE OBJECT": "large object", "TABLESPACE": "tablespace", "PARAMETER": "parameter",
    "FOREIGN DATA WRAPPER": "foreign data wrapper", "FOREIGN SERVER": "foreign server",
    "ALL TABLES IN SCHEMA": "table", "ALL SEQUENCES IN SCHEMA": "sequence", "ALL FUNCTIONS IN SCHEMA": "function",
    "ALL PROCEDURES IN SCHEMA": "function", "ALL ROUTINES IN SCHEMA": "function",
}  # fmt: skip


def parse_statement(text: str, schema: str) -> StatementFacts:
    """What the statement does. What can't be classified is an UnknownStatement among the facts.

    `schema`: the one that names without a schema, and the sentinel of the schema's name, stand for.
    """
    if plain := plain_queries.parse_plain_query(text, schema):
        start = len(text) - len(text.lstrip())
        return replace(plain, facts=tuple(_place_fact(fact, start, text) for fact in plain.facts))
    return _parse_tokens(tokenize(text), text, schema)


def _parse_tokens(tokens: Sequence[Token], text: str, schema: str) -> StatementFacts:
    reader = TokenReader(tokens, schema)
    start = reader.offset
    strings: set[str] = set()
    if reader.peek_word() != "COMMENT":
        strings = {unquote_string(token) for token in tokens if token.kind == "quoted" and token.text.endswith("'")}
    facts: list[Fact] = []
    try:
        for fact in _parse_kind(reader, text, schema):
            if isinstance(fact, StatementFacts):
                facts.extend(fact.facts)
                strings |= fact.strings
            else:
                facts.append(fact)
    except NotUnderstood as problem:
        facts.append(UnknownStatement(problem.what, at=problem.at))
    return StatementFacts(tuple(_place_fact(fact, start, text) for fact in facts), frozenset(strings))


def _place_fact(fact: Fact, start: int, text: str) -> Fact:
    return fact if fact.at and fact.text else replace(fact, text=fact.text or text, at=fact.at or start)


def _parse_kind(reader: TokenReader, text: str, schema: str) -> Iterator[Fact | StatementFacts]:
    if reader.peek_word() in _QUERIES or reader.peek_text() == "(":
        from stackctl.migrate.parser import queries  # and sqlglot

        yield from queries.parse_query(text, schema)
    elif how := reader.accept_one_of(*_OUTSIDE):
        yield TransactionRefused(how)
    elif reader.accept("ALTER"):
        yield from parse_alter(reader)
    elif reader.accept("CREATE"):
        yield from _parse_create(reader)
    elif reader.accept("DROP"):
        yield from _parse_drop(reader)
    elif reader.accept("REVOKE"):
        yield from _parse_revoke(reader)
    elif reader.accept("TRUNCATE"):
        yield from _parse_truncate(reader)
    elif reader.accept("REINDEX"):
        yield from _parse_reindex(reader)
    elif reader.accept("VACUUM"):
        yield from _parse_vacuum(reader)
    elif reader.accept("CLUSTER"):
        yield from _parse_cluster(reader)
    elif reader.accept("REFRESH", "MATERIALIZED", "VIEW"):
        concurrently = reader.accept("CONCURRENTLY")
        yield ViewRefreshed(reader.read_name(), concurrently)
    elif reader.accept("LOCK"):
        reader.accept("TABLE")
        for part in split_tokens(reader.rest):
            one = reader.fork(part)
            one.accept("ONLY")
            yield TableLocked(one.read_name())
    elif reader.accept("DO"):
        yield from _parse_do(reader, schema)
    elif (word := reader.accept_one_of(*_TRANSACTIONS)) and not (
        word == "ROLLBACK" and "TO" in (reader.peek_word(), reader.peek_word(1))
    ):
        yield TransactionControl(word)
    elif not word and not reader.accept_one_of(*_OTHERS):
        raise reader.make_error("not a statement that is known")


# -- CREATE


def _parse_create(reader: TokenReader) -> Iterator[Fact]:
    replaces = reader.accept("OR", "REPLACE")
    unique = reader.accept("UNIQUE")
    if reader.accept("INDEX"):
        yield from _parse_create_index(reader, unique=unique)
        return
    if unique:
        raise reader.make_error("not a CREATE that is known")
    reader.accept_one_of("GLOBAL", "LOCAL")
    persistence = reader.accept_one_of("TEMPORARY", "TEMP", "UNLOGGED")
    if reader.accept("TABLE"):
        yield from _parse_create_table(reader, temporary=persistence.startswith("TEMP"))
    elif kind := reader.accept_one_of("TRIGGER", "CONSTRAINT TRIGGER", "POLICY"):
        yield from _parse_part_of_table(reader, "CREATE OR REPLACE" if replaces else "CREATE", kind)
    elif kind := reader.accept_one_of(*_CREATED):
        reader.accept("IF", "NOT", "EXISTS")
        if kind == "USER MAPPING" or (kind == "SCHEMA" and reader.accept("AUTHORIZATION")):
            return
        name = reader.read_name()
        arguments = None
        if _CREATED[kind] == "function":
            arguments = tuple(_parse_argument(part) for part in split_tokens(reader.read_brackets()) if part)
            yield _parse_routine(reader, name)
        yield ObjectReplaced(_CREATED[kind], name) if replaces else ObjectCreated(_CREATED[kind], name, arguments)
        if kind == "DOMAIN":
            yield definitions.parse_domain(reader, name)
    elif not reader.accept_one_of(*_CREATED_OTHERS) and not (replaces and reader.accept_one_of("LANGUAGE")):
        raise reader.make_error("not a CREATE that is known")


def _parse_create_index(reader: TokenReader, *, unique: bool) -> Iterator[Fact]:
    concurrently = reader.accept("CONCURRENTLY")
    reader.accept("IF", "NOT", "EXISTS")
    name = None if reader.peek_word() == "ON" else reader.read_name()
    reader.expect("ON")
    only = reader.accept("ONLY")
    table = reader.read_name()
    if reader.accept("USING"):
        reader.read_identifier()
    columns: list[str] = []
    for part in split_tokens(reader.read_brackets()):
        if not part or (len(part) > 1 and part[1].text in "(.::") or part[0].text == "(":
            break
        columns.append(fold_identifier(part[0]))
    partial = any(token.text.upper() == "WHERE" for token in reader.rest)
    if concurrently:
        yield TransactionRefused("CREATE INDEX CONCURRENTLY")
    # An index lives in its table's schema.
    found = name and table.sibling(name.name)
    yield IndexBuilt(found, table, concurrently, only, unique, tuple(columns), partial)
    if found:
        yield ObjectCreated("index", found)


def _parse_create_table(reader: TokenReader, *, temporary: bool) -> Iterator[Fact]:
    reader.accept("IF", "NOT", "EXISTS")
    name = reader.read_name()
    is_partition = reader.accept("PARTITION", "OF")
    parent = reader.read_name() if is_partition else None
    is_typed = reader.accept("OF")
    if is_typed:
        reader.read_name()
    elements = split_tokens(reader.read_brackets()) if reader.peek_text() == "(" else []
    words = [token.text.upper() for token, depth in iter_with_depth(reader.rest) if token.kind == "word" and depth == 0]
    partitioned = ("PARTITION", "BY") in pairwise(words)
    yield ObjectCreated("table", name, partitioned=partitioned, temporary=temporary, parent=parent)
    if not elements and not (words or is_partition or is_typed):
        raise reader.make_error("a table without columns")
    if is_partition or is_typed or (elements and all(len(element) == 1 for element in elements)):
        return  # CREATE TABLE … (names) AS SELECT …
    facts: list[Fact] = []
    for element in elements:
        part = reader.fork(element)
        if not element or part.accept("LIKE"):
            continue
        at, text = part.offset, join_tokens(element)
        if definitions.is_constraint(part):
            facts.append(ConstraintAdded(name, definitions.parse_constraint(part, name), at=at, text=text))
            continue
        column, constraints = definitions.parse_column(part, name, added=False, text=text)
        facts += [ColumnAdded(name, column, at=at, text=text), *constraints]
    keys = [
        f.constraint.columns for f in facts if isinstance(f, ConstraintAdded) and f.constraint.kind == "primary key"
    ]
    for fact in facts:
        if isinstance(fact, ColumnAdded) and (fact.column.name,) in keys:
            fact = replace(fact, column=replace(fact.column, key=True))
        yield fact


def _parse_part_of_table(reader: TokenReader, how: str, kind: str) -> Iterator[Fact]:
    """CREATE or DROP of a trigger or policy."""
    name = reader.read_identifier()
    # The events of a trigger stand between.
    while not reader.done and not reader.accept("ON"):
        reader.take()
    table = reader.read_name()
    yield PolicyChanged(how, table, name) if kind == "POLICY" else TriggerChanged(how, table, name)  # type: ignore[arg-type]


def _parse_routine(reader: TokenReader, name: QualifiedName) -> RoutineDefined:
    rest = [token.text.upper() for token in reader.rest]
    pairs = set(pairwise(rest))
    return RoutineDefined(name, ("SECURITY", "DEFINER") in pairs, ("SET", "SEARCH_PATH") in pairs)


def _parse_argument(tokens: Sequence[Token]) -> str:
    """One argument of a routine, as far as names of types tell two routines apart."""
    for n, token in enumerate(tokens):
        if token.text.upper() == "DEFAULT" or token.text == "=":
            tokens = tokens[:n]
            break
    if tokens and tokens[0].text.upper() in ("IN", "OUT", "INOUT", "VARIADIC"):
        tokens = tokens[1:]
    for first in range(len(tokens)):  # the longest tail that names a type; before it stands the argument's name
        known = definitions.parse_type(tokens[first:]).base
        if first == len(tokens) - 1 or known != join_tokens(tokens[first:]).lower() or known == "double precision":
            return known
    return ""


# -- DROP and others


def _parse_drop(reader: TokenReader) -> Iterator[Fact]:
    if kind := reader.accept_one_of("TRIGGER", "POLICY"):
        reader.accept("IF", "EXISTS")
        yield from _parse_part_of_table(reader, "DROP", kind)
        return
    if reader.accept("OWNED", "BY"):
        roles = [token for token in reader.rest if token.text.upper() not in ("CASCADE", "RESTRICT")]
        yield OwnedDropped(join_tokens(roles))
        return
    kind = reader.accept_one_of(*_DROPPED)
    if not kind:
        if not reader.accept_one_of(*_DROPPED_OTHERS):
            raise reader.make_error("not a DROP that is known")
        return
    if kind == "USER MAPPING":
        return
    concurrently = kind == "INDEX" and reader.accept("CONCURRENTLY")
    reader.accept("IF", "EXISTS")
    if concurrently:
        yield TransactionRefused("DROP INDEX CONCURRENTLY")
    for part in split_tokens(reader.rest):
        one = reader.fork(part)
        at, name = one.offset, one.read_name()
        arguments = None
        if one.peek_text() == "(":
            arguments = tuple(_parse_argument(argument) for argument in split_tokens(one.read_brackets()) if argument)
        if kind == "DATABASE":
            yield TransactionRefused("DROP DATABASE")
            if one.accept("WITH") or one.peek_text() == "(":
                one.read_brackets()
        one.accept_one_of("CASCADE", "RESTRICT")
        one.expect_end()
        yield ObjectDropped(
            _DROPPED[kind], name, concurrently, arguments, at=at, text=f"DROP {kind} {join_tokens(part)}"
        )


def _parse_revoke(reader: TokenReader) -> Iterator[Fact]:
    # GRANT OPTION FOR takes nothing from those who have the right; membership of a role is rights all the same.
    if reader.accept("GRANT", "OPTION", "FOR"):
        return
    at = reader.offset
    while not reader.done and reader.peek_word() not in ("ON", "FROM"):
        if reader.peek_text() == "(":
            reader.read_brackets()
        else:
            reader.take()
    if reader.accept("FROM") or not reader.accept("ON"):
        yield RightsRevoked("role", None, at=at)
        return
    kind = reader.accept_one_of(*_GRANTED)
    for part in split_tokens(_take_until_from(reader)):
        one = reader.fork(part)
        name = None if kind.startswith("ALL") else one.read_name()
        yield RightsRevoked(_GRANTED.get(kind, "table"), name, at=at)


def _take_until_from(reader: TokenReader) -> Sequence[Token]:
    tokens: list[Token] = []
    while not reader.done and reader.peek_word() != "FROM":
        tokens.append(reader.take())
    return tokens


def _parse_truncate(reader: TokenReader) -> Iterator[Fact]:
    reader.accept("TABLE")
    cascade = any(token.text.upper() == "CASCADE" for token in reader.rest)
    for part in split_tokens(reader.rest):
        one = reader.fork(part)
        one.accept("ONLY")
        at = one.offset
        yield TableTruncated(one.read_name(), cascade, at=at)


def _parse_reindex(reader: TokenReader) -> Iterator[Fact]:
    options = {token.text.upper() for token in reader.read_brackets()} if reader.peek_text() == "(" else set[str]()
    kind = reader.accept_one_of("INDEX", "TABLE", "SCHEMA", "DATABASE", "SYSTEM")
    if not kind:
        raise reader.make_error("not a REINDEX that is known")
    concurrently = reader.accept("CONCURRENTLY") or "CONCURRENTLY" in options
    name = None if reader.done else reader.read_name()
    if concurrently or kind in ("SCHEMA", "DATABASE", "SYSTEM"):
        yield TransactionRefused(f"REINDEX {kind}" + " CONCURRENTLY" * concurrently)
    yield IndexesRebuilt(kind.lower(), name, concurrently)


def _parse_vacuum(reader: TokenReader) -> Iterator[Fact]:
    options = list(reader.read_brackets()) if reader.peek_text() == "(" else []
    full = any(
        join_tokens(part).upper().split()[:1] == ["FULL"]
        and join_tokens(part).upper().split()[1:] not in (["FALSE"], ["OFF"])
        for part in split_tokens(options)
    )
    while word := reader.accept_one_of("FULL", "FREEZE", "VERBOSE", "ANALYZE", "ANALYSE"):
        full |= word == "FULL"
    yield TransactionRefused("VACUUM")
    if not full:
        return
    if reader.done:
        yield TableCompacted("VACUUM FULL", None)
    for part in split_tokens(reader.rest) if not reader.done else ():
        yield TableCompacted("VACUUM FULL", reader.fork(part).read_name())


def _parse_cluster(reader: TokenReader) -> Iterator[Fact]:
    if reader.peek_text() == "(":
        reader.read_brackets()
    reader.accept("VERBOSE")
    if reader.done:
        yield TransactionRefused("CLUSTER")
        yield TableCompacted("CLUSTER", None)
        return
    name = reader.read_name()
    if reader.accept("ON"):  # CLUSTER index ON table
        name = reader.read_name()
    yield TableCompacted("CLUSTER", name)


def _parse_do(reader: TokenReader, schema: str) -> Iterator[Fact | StatementFacts]:
    body: Token | None = None
    language = "plpgsql"
    while not reader.done:
        if reader.accept("LANGUAGE"):
            token = reader.take()
            language = (unquote_string(token) if "'" in token.text else token.text).lower()
        else:
            body = reader.take()
    if body is None or body.kind != "quoted" or language != "plpgsql":
        raise reader.make_error(f"a DO block in {language}")
    content = unquote_string(body)
    # Where quotes are doubled, places inside do not count: a finding then stands at the block.
    shift = body.text.index(content) if content in body.text else None
    for embedded in plpgsql.find_statements(content):
        at = body.start if shift is None else body.start + shift + embedded.at
        if embedded.dynamic:
            yield DynamicSql(at=at, text=embedded.text)
            continue
        inner = _parse_tokens(tokenize(embedded.text), embedded.text, schema)
        exact = embedded.exact and shift is not None
        for fact in inner.facts:
            if isinstance(fact, TransactionControl):
                fact = replace(fact, in_block=True)
            yield replace(fact, at=at + fact.at if exact else at)
        yield StatementFacts((), inner.strings)
