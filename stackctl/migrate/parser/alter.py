"""ALTER …: one fact for each of its actions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackctl.migrate.parser import definitions
from stackctl.migrate.parser.facts import (
    ColumnAdded,
    ColumnDropped,
    ColumnGenerated,
    ColumnRenamed,
    ConstraintAdded,
    ConstraintDropped,
    ConstraintValidated,
    DefaultDropped,
    DefaultSet,
    EnumValueAdded,
    EnumValueRenamed,
    Fact,
    GenerationDropped,
    InheritanceDropped,
    NotNullDropped,
    NotNullSet,
    ObjectRenamed,
    OptionsChanged,
    PartitionMoved,
    PolicyChanged,
    ReplicaIdentityChanged,
    RoutineDefined,
    RowSecurityChanged,
    SequenceChanged,
    TableRewritten,
    TransactionRefused,
    TriggerChanged,
    TypeChanged,
    TypeDefinitionChanged,
)
from stackctl.migrate.parser.token_reader import join_tokens, split_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackctl.migrate.parser.token_reader import QualifiedName, TokenReader

_RELATIONS = {
    "TABLE": "table", "FOREIGN TABLE": "table", "VIEW": "view", "MATERIALIZED VIEW": "view", "SEQUENCE": "sequence",
    "INDEX": "index",
}  # fmt: skip
_ROUTINES = ("FUNCTION", "PROCEDURE", "ROUTINE", "AGGREGATE")
# They change no rows and no shape; what they lock, they lock for a moment.
_OTHERS = (
    "USER MAPPING", "GROUP", "DEFAULT PRIVILEGES", "PUBLICATION", "SUBSCRIPTION", "STATISTICS", "RULE",
    "EVENT TRIGGER", "LANGUAGE", "COLLATION", "SERVER", "FOREIGN DATA WRAPPER", "OPERATOR", "CONVERSION",
    "TEXT SEARCH", "LARGE OBJECT", "TABLESPACE",
)  # fmt: skip
_HARMLESS_ACTIONS = (
    "OWNER TO", "ENABLE RULE", "ENABLE REPLICA RULE", "ENABLE ALWAYS RULE", "DISABLE RULE", "NOT OF", "OF",
    "CLUSTER ON", "SET WITHOUT", "RESET", "ALTER CONSTRAINT", "OPTIONS",
)  # fmt: skip
_HARMLESS_COLUMN_ACTIONS = (
    "SET STATISTICS", "SET STORAGE", "SET COMPRESSION", "RESET", "SET CACHE", "SET LOGGED", "SET UNLOGGED", "OPTIONS",
)  # fmt: skip
# What changes the numbers that a sequence gives; behind ALTER COLUMN with a SET before it.
_NUMBERING = ("AS", "INCREMENT", "MINVALUE", "MAXVALUE", "NO", "START", "RESTART", "CYCLE")
_ROW_SECURITY = {
    "ENABLE ROW LEVEL SECURITY": "ENABLE", "DISABLE ROW LEVEL SECURITY": "DISABLE",
    "FORCE ROW LEVEL SECURITY": "FORCE", "NO FORCE ROW LEVEL SECURITY": "NO FORCE",
}  # fmt: skip
_SWITCHES = {
    "ENABLE TRIGGER": "ENABLE", "ENABLE REPLICA TRIGGER": "ENABLE", "ENABLE ALWAYS TRIGGER": "ENABLE",
    "DISABLE TRIGGER": "DISABLE",
}  # fmt: skip


def parse_alter(reader: TokenReader) -> Iterator[Fact]:
    """Read what follows ALTER. Raises NotUnderstood."""
    if words := reader.accept_one_of(*_RELATIONS):
        yield from _parse_relation(reader, words)
    elif reader.accept("TYPE"):
        yield from _parse_type(reader)
    elif reader.accept("DOMAIN"):
        yield from _parse_domain(reader)
    elif kind := reader.accept_one_of(*_ROUTINES, "SCHEMA"):
        name = reader.read_name()
        if reader.peek_text() == "(":
            reader.read_brackets()
        words = [token.text.upper() for token in reader.rest]
        yield from _parse_new_name(reader, "schema" if kind == "SCHEMA" else "function", name)
        if (
            kind != "SCHEMA"
            and words[:1] not in (["RENAME"], ["OWNER"], ["DEPENDS"], ["NO"])
            and words[1:2] != ["SCHEMA"]
        ):
            if "DEFINER" in words:
                yield RoutineDefined(name, definer=True, path_set="SEARCH_PATH" in words)
            yield OptionsChanged("function", name, join_tokens(reader.rest))
    elif kind := reader.accept_one_of("ROLE", "DATABASE", "EXTENSION"):
        yield OptionsChanged(kind.lower(), reader.read_name(), join_tokens(reader.rest))
    elif reader.peek_word(1) != "MAPPING" and reader.accept("USER"):
        yield OptionsChanged("role", reader.read_name(), join_tokens(reader.rest))
    elif kind := reader.accept_one_of("POLICY", "TRIGGER"):
        part = reader.read_identifier()
        reader.expect("ON")
        yield (PolicyChanged if kind == "POLICY" else TriggerChanged)("ALTER", reader.read_name(), part)
    elif reader.accept("SYSTEM"):
        yield TransactionRefused("ALTER SYSTEM")
        yield OptionsChanged("system", None, join_tokens(reader.rest))
    elif not reader.accept_one_of(*_OTHERS):
        raise reader.make_error("not an ALTER that is known")


def _parse_new_name(reader: TokenReader, kind: str, name: QualifiedName) -> Iterator[Fact]:
    at = reader.offset
    if reader.accept("RENAME", "TO"):
        yield ObjectRenamed(kind, name, reader.read_identifier(), at=at)
    elif reader.accept("SET", "SCHEMA"):
        yield ObjectRenamed(kind, name, reader.read_identifier(), moved=True, at=at)


def _parse_relation(reader: TokenReader, words: str) -> Iterator[Fact]:
    kind = _RELATIONS[words]
    if reader.accept("ALL", "IN", "TABLESPACE"):
        raise reader.make_error("all tables of a tablespace")
    reader.accept("IF", "EXISTS")
    reader.accept("ONLY")
    table = reader.read_name()
    reader.accept_symbol("*")
    if reader.done:
        raise reader.make_error("no action")
    if kind in ("sequence", "index") and reader.peek_word() not in ("RENAME", "SET"):
        if kind == "sequence" and any(token.text.upper() in _NUMBERING for token in reader.rest):
            yield SequenceChanged(table, join_tokens(reader.rest), at=reader.offset)
        return
    for part in split_tokens(reader.rest):
        yield from _parse_action(reader.fork(part), table, kind, f"ALTER {words} {table}")


def _parse_action(reader: TokenReader, table: QualifiedName, kind: str, opening: str) -> Iterator[Fact]:
    """One action; the text of its fact is a statement that does nothing else."""
    at, text = reader.offset, f"{opening} {join_tokens(reader.rest)}"
    if reader.accept("RENAME"):
        yield from _parse_rename(reader, table, kind, at)
    elif reader.accept("SET", "SCHEMA"):
        yield ObjectRenamed(kind, table, reader.read_identifier(), moved=True, at=at)
    elif how := reader.accept_one_of("SET LOGGED", "SET UNLOGGED", "SET TABLESPACE", "SET ACCESS METHOD"):
        yield TableRewritten(table, how, at=at, text=text)
    elif switch := reader.accept_one_of(*_ROW_SECURITY):
        yield RowSecurityChanged(table, _ROW_SECURITY[switch], at=at, text=text)  # type: ignore[arg-type]
    elif switch := reader.accept_one_of(*_SWITCHES):
        yield TriggerChanged(_SWITCHES[switch], table, reader.read_identifier(), at=at, text=text)  # type: ignore[arg-type]
    elif reader.accept("REPLICA", "IDENTITY"):
        yield ReplicaIdentityChanged(table, join_tokens(reader.rest), at=at, text=text)
    elif reader.accept("NO", "INHERIT"):
        yield InheritanceDropped(table, reader.read_name(), at=at, text=text)
    elif kind == "view" and reader.peek_word() in ("SET", "RESET") and reader.peek_text(1) == "(":
        yield OptionsChanged("view", table, join_tokens(reader.rest), at=at, text=text)
    elif reader.accept_one_of(*_HARMLESS_ACTIONS) or (reader.peek_word() == "SET" and reader.peek_text(1) == "("):
        return
    elif reader.accept("INHERIT"):
        reader.read_name()
    elif reader.accept("ADD"):
        yield from _parse_add(reader, table, at, text)
    elif reader.accept("DROP"):
        yield from _parse_drop(reader, table, at, text)
    elif reader.accept("ALTER"):
        reader.accept("COLUMN")
        yield from _parse_column_action(reader, table, at, text)
    elif reader.accept("VALIDATE", "CONSTRAINT"):
        yield ConstraintValidated(table, reader.read_identifier(), at=at, text=text)
    elif how := reader.accept_one_of("ATTACH PARTITION", "DETACH PARTITION"):
        partition = reader.read_name()
        if how == "ATTACH PARTITION":
            yield PartitionMoved("attach", table, partition, at=at, text=text)
        else:
            lockless = bool(reader.accept_one_of("CONCURRENTLY", "FINALIZE"))
            yield PartitionMoved("detach", table, partition, lockless, at=at, text=text)
            if lockless:
                yield TransactionRefused("DETACH PARTITION CONCURRENTLY", at=at)
    elif kind != "sequence":
        raise reader.make_error("not an action that is known")


def _parse_rename(reader: TokenReader, table: QualifiedName, kind: str, at: int) -> Iterator[Fact]:
    if reader.accept("TO"):
        yield ObjectRenamed(kind, table, reader.read_identifier(), at=at)
        return
    if reader.accept("CONSTRAINT"):
        old = reader.read_identifier()
        reader.expect("TO")
        yield ObjectRenamed("constraint", table.sibling(old), reader.read_identifier(), at=at, table=table)
        return
    reader.accept("COLUMN")
    old = reader.read_identifier()
    reader.expect("TO")
    yield ColumnRenamed(table, old, reader.read_identifier(), at=at)


def _parse_add(reader: TokenReader, table: QualifiedName, at: int, text: str) -> Iterator[Fact]:
    if definitions.is_constraint(reader):
        yield ConstraintAdded(table, definitions.parse_constraint(reader, table), at=at, text=text)
        return
    reader.accept("COLUMN")
    reader.accept("IF", "NOT", "EXISTS")
    column, constraints = definitions.parse_column(reader, table, added=True, text=text)
    yield ColumnAdded(table, column, at=at, text=text)
    yield from constraints


def _parse_drop(reader: TokenReader, table: QualifiedName, at: int, text: str) -> Iterator[Fact]:
    is_constraint = reader.accept("CONSTRAINT")
    if not is_constraint:
        reader.accept("COLUMN")
    reader.accept("IF", "EXISTS")
    name = reader.read_identifier()
    reader.accept_one_of("CASCADE", "RESTRICT")
    reader.expect_end()
    yield (ConstraintDropped if is_constraint else ColumnDropped)(table, name, at=at, text=text)


def _parse_column_action(reader: TokenReader, table: QualifiedName, at: int, text: str) -> Iterator[Fact]:
    column = reader.read_identifier()
    if reader.accept_one_of("TYPE", "SET DATA TYPE"):
        tokens = reader.rest
        using = next((n for n, token in enumerate(tokens) if token.text.upper() == "USING"), len(tokens))
        collate = next((n for n, token in enumerate(tokens) if token.text.upper() == "COLLATE"), using)
        yield TypeChanged(
            table,
            column,
            definitions.parse_type(tokens[: min(using, collate)], reader),
            join_tokens(tokens[using + 1 :]) or None,
            at=at,
            text=text,
        )
    elif reader.accept("SET", "NOT", "NULL"):
        yield NotNullSet(table, column, at=at, text=text)
    elif reader.accept("DROP", "NOT", "NULL"):
        yield NotNullDropped(table, column, at=at, text=text)
    elif reader.accept("DROP", "DEFAULT"):
        yield DefaultDropped(table, column, at=at, text=text)
    elif reader.accept("SET", "DEFAULT"):
        yield DefaultSet(table, column, at=at, text=text)
    elif reader.accept("SET", "EXPRESSION"):
        yield TableRewritten(table, "SET EXPRESSION", at=at, text=text)
    elif how := reader.accept_one_of("DROP IDENTITY", "DROP EXPRESSION"):
        yield GenerationDropped(table, column, how, at=at, text=text)
    elif reader.accept_one_of("ADD GENERATED ALWAYS", "SET GENERATED ALWAYS"):
        yield ColumnGenerated(table, column, at=at, text=text)
    elif reader.accept_one_of("ADD GENERATED BY DEFAULT", "SET GENERATED BY DEFAULT"):
        return
    elif reader.peek_word(reader.peek_word() == "SET") in _NUMBERING:
        yield SequenceChanged(table, join_tokens(reader.rest), column, at=at, text=text)
    elif not reader.accept_one_of(*_HARMLESS_COLUMN_ACTIONS) and not (
        reader.peek_word() == "SET" and reader.peek_text(1) == "("
    ):
        raise reader.make_error("not an action that is known")


def _parse_type(reader: TokenReader) -> Iterator[Fact]:
    name = reader.read_name()
    at = reader.offset
    if reader.accept("ADD", "VALUE"):
        reader.accept("IF", "NOT", "EXISTS")
        yield EnumValueAdded(name, reader.read_string(), at=at)
    elif reader.accept("RENAME", "VALUE"):
        old = reader.read_string()
        reader.expect("TO")
        yield EnumValueRenamed(name, old, reader.read_string(), at=at)
    elif reader.accept("RENAME", "ATTRIBUTE"):
        yield TypeDefinitionChanged(name, f"RENAME ATTRIBUTE {join_tokens(reader.rest)}", at=at)
    elif reader.peek_word() in ("RENAME", "SET") and reader.peek_word(1) in ("TO", "SCHEMA"):
        yield from _parse_new_name(reader, "type", name)
    elif reader.peek_word(1) == "ATTRIBUTE":
        for part in split_tokens(reader.rest):
            one = reader.fork(part)
            if one.peek_word() not in ("ADD", "ALTER", "DROP") or one.peek_word(1) != "ATTRIBUTE":
                raise one.make_error("not an ALTER TYPE that is known")
            done = join_tokens(part)
            yield TypeDefinitionChanged(name, done, at=one.offset, text=f"ALTER TYPE {name} {done}")
    elif not reader.accept("OWNER", "TO") and reader.peek_word() != "SET":
        raise reader.make_error("not an ALTER TYPE that is known")


def _parse_domain(reader: TokenReader) -> Iterator[Fact]:
    name = reader.read_name()
    done = join_tokens(reader.rest)
    at, text = reader.offset, f"ALTER DOMAIN {name} {done}"
    if reader.peek_word() in ("RENAME", "SET") and reader.peek_word(1) in ("TO", "SCHEMA"):
        yield from _parse_new_name(reader, "type", name)
        return
    if reader.accept("VALIDATE", "CONSTRAINT"):
        yield ConstraintValidated(name, reader.read_identifier(), at=at, text=text)
        return
    if reader.accept_one_of("OWNER TO", "RENAME CONSTRAINT"):
        return
    if reader.accept("ADD"):
        yield ConstraintAdded(name, definitions.parse_constraint(reader, name), domain=True, at=at, text=text)
    elif reader.accept("SET", "NOT", "NULL"):
        yield NotNullSet(name, "VALUE", at=at, text=text)
    elif not reader.accept_one_of("DROP CONSTRAINT", "SET DEFAULT", "DROP DEFAULT", "DROP NOT NULL"):
        raise reader.make_error("not an ALTER DOMAIN that is known")
    yield TypeDefinitionChanged(name, done, at=at, text=text)
