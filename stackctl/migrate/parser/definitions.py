"""Column definitions and constraints, as CREATE TABLE and ALTER TABLE write them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from stackctl.migrate.parser.facts import (
    ColumnDefinition,
    ConstraintAdded,
    ConstraintDefinition,
    DataType,
    DomainDefined,
    Fact,
)
from stackctl.migrate.parser.token_reader import fold_identifier, iter_with_depth, join_tokens, split_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stackctl.migrate.parser.facts import ConstraintKind
    from stackctl.migrate.parser.token_reader import QualifiedName, TokenReader
    from stackctl.postgres.lexer import Token

_KINDS: dict[str, ConstraintKind] = {
    "CHECK": "check", "UNIQUE": "unique", "PRIMARY KEY": "primary key", "FOREIGN KEY": "foreign key",
    "REFERENCES": "foreign key", "EXCLUDE": "exclude", "NOT NULL": "not null",
}  # fmt: skip
# What PostgreSQL calls a type that may be written in several ways.
_ALIASES = {
    "int": "integer", "int4": "integer", "int2": "smallint", "int8": "bigint", "bool": "boolean", "decimal": "numeric",
    "float8": "double precision", "float": "double precision", "float4": "real", "serial4": "serial",
    "serial8": "bigserial", "serial2": "smallserial", "character varying": "varchar", "char varying": "varchar",
    "character": "char", "bpchar": "char", "nchar": "char", "national character": "char", "national char": "char",
    "timestamp without time zone": "timestamp", "timestamp with time zone": "timestamptz",
    "time without time zone": "time", "time with time zone": "timetz", "bit varying": "varbit", "dec": "numeric",
}  # fmt: skip

# Words that end a column's type or the constraint before them.
_CONSTRAINT = frozenset(
    ("CONSTRAINT", "CHECK", "DEFAULT", "GENERATED", "UNIQUE", "PRIMARY", "REFERENCES", "COLLATE", "STORAGE",
     "COMPRESSION", "USING", "AS")
)  # fmt: skip
_NEVER_A_FUNCTION = frozenset(
    ("ARRAY", "ROW", "CAST", "COALESCE", "NULLIF", "GREATEST", "LEAST", "EXTRACT", "IN", "ANY", "AND", "OR", "NOT",
     "CASE", "WHEN", "THEN", "ELSE", "OVERLAY", "POSITION", "SUBSTRING", "TRIM", "INTERVAL", "VALUES")
)  # fmt: skip


def parse_type(tokens: Sequence[Token], reader: TokenReader | None = None) -> DataType:
    """A type as written: `character varying(20)[]`, `public."Mood"`, `timestamp(3) without time zone`.

    `reader` knows the schema that a name without one stands for.
    """
    text = join_tokens(tokens)
    names: list[str] = []
    modifier = ""
    tail = ""
    for token, depth in iter_with_depth(tokens):
        if depth == 0:
            names.append(token.text.lower() if token.kind == "word" else token.text)
        elif "[" in token.text or token.text == "]":
            tail = "[]"
        elif tail == "" and token.text not in "()":
            modifier += token.text
    base = re.sub(r"\s*\.\s*", ".", " ".join(names)).removeprefix("pg_catalog.")
    if base.endswith(" array"):
        base, tail = base.removesuffix(" array"), "[]"
    name = reader.fork(tokens).read_name() if reader and tokens and not tail and base not in _ALIASES else None
    return DataType(text, _ALIASES.get(base, base) + tail, modifier, name)


def is_constraint(reader: TokenReader) -> bool:
    """Whether a table's element is a constraint, and not a column."""
    return reader.peek_word() in ("CONSTRAINT", "CHECK", "UNIQUE", "PRIMARY", "FOREIGN") or (
        (reader.peek_word() == "EXCLUDE" and (reader.peek_word(1) == "USING" or reader.peek_text(1) == "("))
        or (reader.peek_word() == "NOT" and reader.peek_word(1) == "NULL")
    )


def parse_column(
    reader: TokenReader, table: QualifiedName, *, added: bool, text: str
) -> tuple[ColumnDefinition, list[Fact]]:
    """Read a column's definition to its end: the column, and its constraints as facts.

    `added`: the table is there already. Raises NotUnderstood.
    """
    start = reader.offset
    shown = reader.peek_text()
    name = reader.read_identifier()
    parts = _split_definition(reader.take_rest())
    if not parts[0]:
        raise reader.make_error(f"column {shown} has no type")
    column = ColumnDefinition(name, shown, parse_type(parts[0], reader))
    constraints: list[tuple[int, ConstraintDefinition]] = []
    label: str | None = None
    for part in parts[1:]:
        words = [token.text.upper() if token.kind == "word" else token.text for token in part]
        match words:
            case ["CONSTRAINT", *_] if len(part) == 2:
                label = fold_identifier(part[1])
                continue
            case ["DEFAULT", *_]:
                column = replace(column, default=join_tokens(part[1:]), calls=find_calls(part[1:]))
            case ["NOT", "NULL", *_]:
                column = replace(column, not_null=True)
            case ["GENERATED", *_] if "IDENTITY" in words:
                column = replace(column, identity=True, not_null=True)
            case ["GENERATED", *_] if words[-1] == "STORED":  # without a word it is VIRTUAL, from 18 on
                column = replace(column, stored=True, calls=find_calls(part[3:]))
            case ["CHECK" | "UNIQUE" | "PRIMARY" | "REFERENCES", *_]:
                constraints.append(
                    (part[0].start, _parse_constraint_body(reader.fork(part), table, label, column=name))
                )
        label = None
    if any(constraint.kind == "primary key" for _, constraint in constraints):
        column = replace(column, not_null=True, key=True)
    facts: list[Fact] = [
        ConstraintAdded(table, constraint, column, added, at=at, text=text) for at, constraint in constraints
    ]
    if column.not_null and not added:
        guess = f"{table.name}_{name}_not_null"
        certain = ConstraintDefinition("not null", guess, False, (name,), not_null_columns=frozenset({name}))
        facts.append(ConstraintAdded(table, certain, column, added, at=start, text=text))
    return column, facts


def parse_domain(reader: TokenReader, name: QualifiedName) -> DomainDefined:
    """Read what follows CREATE DOMAIN name."""
    reader.accept("AS")
    parts = _split_definition(reader.rest)
    words = [[token.text.upper() for token in part[:2]] for part in parts[1:]]
    default = next((part for part, said in zip(parts[1:], words, strict=True) if said[:1] == ["DEFAULT"]), [])
    strict = any(said[0] == "CHECK" or said == ["NOT", "NULL"] for said in words)
    return DomainDefined(name, parse_type(parts[0], reader), strict, find_calls(default[1:]))


def parse_constraint(reader: TokenReader, table: QualifiedName) -> ConstraintDefinition:
    """Read `[CONSTRAINT name] …` to its end. Raises NotUnderstood."""
    label = reader.read_identifier() if reader.accept("CONSTRAINT") else None
    return _parse_constraint_body(reader, table, label)


def find_calls(tokens: Sequence[Token]) -> tuple[str, ...]:
    """The functions that an expression calls, in lower case unless quoted; keywords like CURRENT_DATE are none."""
    calls: list[str] = []
    for n, token in enumerate(tokens):
        is_name = token.kind == "word" or token.text.endswith('"')
        followed = n + 1 < len(tokens) and tokens[n + 1].text == "("
        if not is_name or not followed or token.text.upper() in _NEVER_A_FUNCTION:
            continue
        first = n
        while first >= 2 and tokens[first - 1].text == ".":
            first -= 2
        before = tokens[first - 1].text.upper() if first else ""
        if before not in ("::", "AS"):  # numeric(10, 2) after a cast is a type
            calls.append(".".join(fold_identifier(t) for t in tokens[first : n + 1 : 2]))
    return tuple(calls)


def find_not_null_columns(tokens: Sequence[Token]) -> frozenset[str]:
    """The columns that a check's expression keeps from being null: its parts `column IS NOT NULL`, joined by AND."""
    while len(tokens) > 2 and tokens[0].text == "(" and _find_closing(tokens) == len(tokens) - 1:
        tokens = tokens[1:-1]
    conjuncts: list[list[Token]] = [[]]
    for token, depth in iter_with_depth(tokens):
        word = token.text.upper() if depth == 0 and token.kind == "word" else ""
        if word == "OR":
            return frozenset()
        if word == "AND":
            conjuncts.append([])
        else:
            conjuncts[-1].append(token)
    if len(conjuncts) > 1:
        return frozenset().union(*(find_not_null_columns(part) for part in conjuncts))
    if [token.text.upper() for token in tokens[1:]] == ["IS", "NOT", "NULL"]:
        return frozenset({fold_identifier(tokens[0])})
    return frozenset()


def _find_closing(tokens: Sequence[Token]) -> int:
    """Where the bracket that opens first is closed."""
    depth = 0
    for n, token in enumerate(tokens):
        depth += (token.text == "(") - (token.text == ")")
        if depth == 0:
            return n
    return -1


def _split_definition(tokens: Sequence[Token]) -> list[list[Token]]:
    """A column's type, then its constraints, each with its own words."""
    parts: list[list[Token]] = [[]]
    previous = ""
    listed = list(iter_with_depth(tokens))
    for n, (token, depth) in enumerate(listed):
        word = token.text.upper() if token.kind == "word" and depth == 0 else ""
        following = listed[n + 1][0].text.upper() if n + 1 < len(listed) else ""
        begins = word in _CONSTRAINT or (word == "NOT" and following == "NULL") or word == "NULL"
        if begins and (
            (word in ("NULL", "DEFAULT") and previous == "SET")  # ON DELETE SET NULL
            or (word == "DEFAULT" and previous == "BY")  # GENERATED BY DEFAULT
            or (word == "NULL" and previous in ("NOT", "DEFAULT"))
            or (word == "AS" and previous in ("ALWAYS", "DEFAULT"))
            or (word == "USING" and previous != "")  # UNIQUE … USING INDEX TABLESPACE
        ):
            begins = False
        if begins:
            parts.append([])
        parts[-1].append(token)
        if word == "CONSTRAINT" and following:  # its name may look like a keyword
            previous = word
            continue
        previous = word or "?"
    return parts


def _parse_constraint_body(
    reader: TokenReader, table: QualifiedName, label: str | None, column: str | None = None
) -> ConstraintDefinition:
    body = join_tokens(reader.rest)
    words = reader.accept_one_of(*_KINDS)
    columns: tuple[str, ...] = (column,) if column else ()
    certain: frozenset[str] = frozenset()
    using_index = ""
    references: QualifiedName | None = None
    on_delete = ""
    match words:
        case "CHECK":
            certain = find_not_null_columns(reader.read_brackets())
            columns = columns or tuple(certain)
            suffix = "_".join([*columns[:1], "check"])
        case "UNIQUE" | "PRIMARY KEY":
            if words == "UNIQUE" and reader.accept("NULLS"):
                reader.accept("NOT")
                reader.expect("DISTINCT")
            if reader.accept("USING", "INDEX"):
                using_index = reader.read_identifier()
            else:
                columns = columns or _read_names(reader)
            certain = frozenset(columns) if words == "PRIMARY KEY" else certain
            suffix = "pkey" if words == "PRIMARY KEY" else "_".join([*columns, "key"])
        case "FOREIGN KEY" | "REFERENCES":
            columns = columns or _read_names(reader)
            suffix = "_".join([*columns, "fkey"])
            if words == "FOREIGN KEY":
                reader.expect("REFERENCES")
            references = reader.read_name()
        case "NOT NULL":
            columns = (reader.read_identifier(),)
            certain, suffix = frozenset(columns), f"{columns[0]}_not_null"
        case "EXCLUDE":
            suffix = "excl"
        case _:
            raise reader.make_error("not a constraint")
    not_valid = False
    while not reader.done:
        # NOT ENFORCED is never checked, so adding it looks at no row either.
        if reader.accept_one_of("NOT VALID", "NOT ENFORCED"):
            not_valid = True
        elif reader.accept("ON", "DELETE"):
            on_delete = reader.accept_one_of("NO ACTION", "RESTRICT", "CASCADE", "SET NULL", "SET DEFAULT")
        else:
            reader.take()
    name = label or f"{table.name}_{suffix}"
    return ConstraintDefinition(
        _KINDS[words], name, label is not None, columns, not_valid, using_index, certain, body, references, on_delete
    )


def _read_names(reader: TokenReader) -> tuple[str, ...]:
    return tuple(fold_identifier(part[0]) for part in split_tokens(reader.read_brackets()) if part)
