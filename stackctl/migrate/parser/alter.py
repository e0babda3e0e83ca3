"""ALTER …: one fact for each of its actions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackctl.migrate.parser import definitions
from stackctl.migrate.parser.facts import (
    ColumnAdded,
    ColumnDropped,
    ColumnRenamed,
    ConstraintAdded,
    ConstraintDropped,
    ConstraintValidated,
    DefaultDropped,
    EnumValueAdded,
    EnumValueRenamed,
    Fact,
    NotNullDropped,
    NotNullSet,
    NoTransaction,
    PartitionMoved,
    Renamed,
    Rewritten,
    TypeChanged,
)
from stackctl.migrate.parser.token_reader import split, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackctl.migrate.parser.token_reader import Name, Reader

_RELATIONS = {
    "TABLE": "table", "FOREIGN TABLE": "table", "VIEW": "view", "MATERIALIZED VIEW": "view", "SEQUENCE": "sequence",
    "INDEX": "index",
}  # fmt: skip
_ROUTINES = ("FUNCTION", "PROCEDURE", "ROUTINE", "AGGREGATE")
# They change no rows and no shape; what they lock, they lock for a moment.
_OTHERS = (
    "ROLE", "USER MAPPING", "USER", "GROUP", "DEFAULT PRIVILEGES", "EXTENSION", "POLICY", "TRIGGER", "PUBLICATION",
    "SUBSCRIPTION", "DATABASE", "STATISTICS", "RULE", "EVENT TRIGGER", "LANGUAGE", "COLLATION", "SERVER",
    "FOREIGN DATA WRAPPER", "OPERATOR", "CONVERSION", "TEXT SEARCH", "LARGE OBJECT", "TABLESPACE",
)  # fmt: skip
_HARMLESS_ACTIONS = (
    "OWNER TO", "ENABLE", "DISABLE", "FORCE ROW LEVEL SECURITY", "NO FORCE ROW LEVEL SECURITY", "NO INHERIT",
    "NOT OF", "OF", "REPLICA IDENTITY", "CLUSTER ON", "SET WITHOUT", "RESET", "ALTER CONSTRAINT",
    "OPTIONS",
)  # fmt: skip
_HARMLESS_COLUMN_ACTIONS = (
    "SET DEFAULT", "DROP EXPRESSION", "ADD GENERATED", "SET GENERATED", "DROP IDENTITY",
    "SET STATISTICS", "SET STORAGE", "SET COMPRESSION", "RESET", "RESTART", "SET INCREMENT", "SET START", "SET RESTART",
    "SET CACHE", "SET MINVALUE", "SET MAXVALUE", "SET NO", "SET CYCLE", "OPTIONS",
)  # fmt: skip


def alter(reader: Reader) -> Iterator[Fact]:
    """Read what follows ALTER. Raises NotUnderstood."""
    if words := reader.one_of(*_RELATIONS):
        yield from _relation(reader, words)
    elif reader.accept("TYPE"):
        yield from _type(reader)
    elif reader.accept("DOMAIN"):
        yield from _domain(reader)
    elif kind := reader.one_of(*_ROUTINES, "SCHEMA"):
        name = reader.name()
        if reader.text() == "(":
            reader.brackets()
        yield from _renamed(reader, "schema" if kind == "SCHEMA" else "function", name)
    elif reader.accept("SYSTEM"):
        yield NoTransaction("ALTER SYSTEM")
    elif not reader.one_of(*_OTHERS):
        raise reader.lost("not an ALTER that is known")


def _renamed(reader: Reader, kind: str, name: Name) -> Iterator[Fact]:
    at = reader.offset
    if reader.accept("RENAME", "TO"):
        yield Renamed(kind, name, reader.identifier(), at=at)
    elif reader.accept("SET", "SCHEMA"):
        yield Renamed(kind, name, reader.identifier(), moved=True, at=at)


def _relation(reader: Reader, words: str) -> Iterator[Fact]:
    kind = _RELATIONS[words]
    if reader.accept("ALL", "IN", "TABLESPACE"):
        raise reader.lost("all tables of a tablespace")
    reader.accept("IF", "EXISTS")
    reader.accept("ONLY")
    table = reader.name()
    reader.symbol("*")
    if reader.done:
        raise reader.lost("no action")
    if kind in ("sequence", "index") and reader.word() not in ("RENAME", "SET"):
        return
    for part in split(reader.rest):
        yield from _action(reader.part(part), table, kind, f"ALTER {words} {table}")


def _action(reader: Reader, table: Name, kind: str, opening: str) -> Iterator[Fact]:
    """One action; the text of its fact is a statement that does nothing else."""
    at, text = reader.offset, f"{opening} {text_of(reader.rest)}"
    if reader.accept("RENAME"):
        yield from _rename(reader, table, kind, at)
    elif reader.accept("SET", "SCHEMA"):
        yield Renamed(kind, table, reader.identifier(), moved=True, at=at)
    elif how := reader.one_of("SET LOGGED", "SET UNLOGGED", "SET TABLESPACE", "SET ACCESS METHOD"):
        yield Rewritten(table, how, at=at, text=text)
    elif reader.one_of(*_HARMLESS_ACTIONS) or (reader.word() == "SET" and reader.text(1) == "("):
        return
    elif reader.accept("INHERIT"):
        reader.name()
    elif reader.accept("ADD"):
        yield from _add(reader, table, at, text)
    elif reader.accept("DROP"):
        yield from _drop(reader, table, at, text)
    elif reader.accept("ALTER"):
        reader.accept("COLUMN")
        yield from _column_action(reader, table, at, text)
    elif reader.accept("VALIDATE", "CONSTRAINT"):
        yield ConstraintValidated(table, reader.identifier(), at=at, text=text)
    elif how := reader.one_of("ATTACH PARTITION", "DETACH PARTITION"):
        partition = reader.name()
        if how == "ATTACH PARTITION":
            yield PartitionMoved("attach", table, partition, at=at, text=text)
        else:
            lockless = bool(reader.one_of("CONCURRENTLY", "FINALIZE"))
            yield PartitionMoved("detach", table, partition, lockless, at=at, text=text)
            if lockless:
                yield NoTransaction("DETACH PARTITION CONCURRENTLY", at=at)
    elif kind != "sequence":
        raise reader.lost("not an action that is known")


def _rename(reader: Reader, table: Name, kind: str, at: int) -> Iterator[Fact]:
    if reader.accept("TO"):
        yield Renamed(kind, table, reader.identifier(), at=at)
        return
    if reader.accept("CONSTRAINT"):
        old = reader.identifier()
        reader.expect("TO")
        yield Renamed("constraint", table.beside(old), reader.identifier(), at=at)
        return
    reader.accept("COLUMN")
    old = reader.identifier()
    reader.expect("TO")
    yield ColumnRenamed(table, old, reader.identifier(), at=at)


def _add(reader: Reader, table: Name, at: int, text: str) -> Iterator[Fact]:
    if definitions.is_definition(reader):
        yield ConstraintAdded(table, definitions.table_constraint(reader, table), at=at, text=text)
        return
    reader.accept("COLUMN")
    reader.accept("IF", "NOT", "EXISTS")
    column, constraints = definitions.column_of(reader, table, added=True, text=text)
    yield ColumnAdded(table, column, at=at, text=text)
    yield from constraints


def _drop(reader: Reader, table: Name, at: int, text: str) -> Iterator[Fact]:
    is_constraint = reader.accept("CONSTRAINT")
    if not is_constraint:
        reader.accept("COLUMN")
    reader.accept("IF", "EXISTS")
    name = reader.identifier()
    reader.one_of("CASCADE", "RESTRICT")
    reader.finish()
    yield (ConstraintDropped if is_constraint else ColumnDropped)(table, name, at=at, text=text)


def _column_action(reader: Reader, table: Name, at: int, text: str) -> Iterator[Fact]:
    column = reader.identifier()
    if reader.one_of("TYPE", "SET DATA TYPE"):
        tokens = reader.rest
        using = next((n for n, token in enumerate(tokens) if token.text.upper() == "USING"), len(tokens))
        collate = next((n for n, token in enumerate(tokens) if token.text.upper() == "COLLATE"), using)
        yield TypeChanged(
            table,
            column,
            definitions.type_of(tokens[: min(using, collate)]),
            text_of(tokens[using + 1 :]) or None,
            at=at,
            text=text,
        )
    elif reader.accept("SET", "NOT", "NULL"):
        yield NotNullSet(table, column, at=at, text=text)
    elif reader.accept("DROP", "NOT", "NULL"):
        yield NotNullDropped(table, column, at=at, text=text)
    elif reader.accept("DROP", "DEFAULT"):
        yield DefaultDropped(table, column, at=at, text=text)
    elif reader.accept("SET", "EXPRESSION"):
        yield Rewritten(table, "SET EXPRESSION", at=at, text=text)
    elif not reader.one_of(*_HARMLESS_COLUMN_ACTIONS) and not (reader.word() == "SET" and reader.text(1) == "("):
        raise reader.lost("not an action that is known")


def _type(reader: Reader) -> Iterator[Fact]:
    name = reader.name()
    at = reader.offset
    if reader.accept("ADD", "VALUE"):
        reader.accept("IF", "NOT", "EXISTS")
        yield EnumValueAdded(name, reader.string(), at=at)
    elif reader.accept("RENAME", "VALUE"):
        old = reader.string()
        reader.expect("TO")
        yield EnumValueRenamed(name, old, reader.string(), at=at)
    elif reader.accept("RENAME", "ATTRIBUTE"):
        old = reader.identifier()
        reader.expect("TO")
        yield ColumnRenamed(name, old, reader.identifier(), at=at)
    elif reader.word() in ("RENAME", "SET") and reader.word(1) in ("TO", "SCHEMA"):
        yield from _renamed(reader, "type", name)
    elif reader.word(1) == "ATTRIBUTE":
        for part in split(reader.rest):
            yield from _attribute(reader.part(part), name)
    elif not reader.accept("OWNER", "TO") and reader.word() != "SET":
        raise reader.lost("not an ALTER TYPE that is known")


def _attribute(reader: Reader, name: Name) -> Iterator[Fact]:
    at, text = reader.offset, f"ALTER TYPE {name} {text_of(reader.rest)}"
    if reader.accept("DROP", "ATTRIBUTE"):
        reader.accept("IF", "EXISTS")
        yield ColumnDropped(name, reader.identifier(), at=at, text=text)
    elif reader.accept("ALTER", "ATTRIBUTE"):
        attribute = reader.identifier()
        reader.one_of("TYPE", "SET DATA TYPE")
        yield TypeChanged(name, attribute, definitions.type_of(reader.rest), None, at=at, text=text)
    else:
        reader.expect("ADD", "ATTRIBUTE")


def _domain(reader: Reader) -> Iterator[Fact]:
    name = reader.name()
    at, text = reader.offset, f"ALTER DOMAIN {name} {text_of(reader.rest)}"
    if reader.accept("ADD"):
        yield ConstraintAdded(name, definitions.table_constraint(reader, name), domain=True, at=at, text=text)
    elif reader.accept("DROP", "CONSTRAINT"):
        reader.accept("IF", "EXISTS")
        yield ConstraintDropped(name, reader.identifier(), at=at, text=text)
    elif reader.accept("VALIDATE", "CONSTRAINT"):
        yield ConstraintValidated(name, reader.identifier(), at=at, text=text)
    elif reader.accept("SET", "NOT", "NULL"):
        yield NotNullSet(name, "VALUE", at=at, text=text)
    elif reader.accept("DROP", "DEFAULT"):
        yield DefaultDropped(name, "VALUE", at=at, text=text)
    elif reader.word() in ("RENAME", "SET") and reader.word(1) in ("TO", "SCHEMA"):
        yield from _renamed(reader, "type", name)
    elif not reader.one_of("SET DEFAULT", "DROP NOT NULL", "OWNER TO", "RENAME CONSTRAINT"):
        raise reader.lost("not an ALTER DOMAIN that is known")
