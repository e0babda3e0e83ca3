"""Statements that read and write rows, by sqlglot's syntax tree."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from stackctl.migrate import files
from stackctl.migrate.parser import volatility
from stackctl.migrate.parser.definitions import find_calls
from stackctl.migrate.parser.facts import Fact, RowsWritten
from stackctl.migrate.parser.token_reader import (
    NotUnderstood,
    QualifiedName,
    iter_with_depth,
    join_tokens,
    quote_identifier,
    split_tokens,
    tokenize,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOT_KNOWN_TO_SQLGLOT = re.compile(r"\bOVERRIDING\s+(?:SYSTEM|USER)\s+VALUE\b", re.IGNORECASE)

# It logs what it can't parse; here that is a finding.
logging.getLogger("sqlglot").addHandler(logging.NullHandler())


def parse_query(text: str, schema: str) -> Iterator[Fact]:
    """The rows that a query writes. Raises NotUnderstood."""
    text = _NOT_KNOWN_TO_SQLGLOT.sub("", text.replace(files.SCHEMA_SENTINEL, quote_identifier(schema)))
    try:
        parsed = sqlglot.parse_one(text, read="postgres")
    except SqlglotError as error:
        raise NotUnderstood(_describe_error(error), 0) from error
    if isinstance(parsed, exp.Command):
        raise NotUnderstood("not a query that is known", 0)
    for node in parsed.find_all(exp.Update, exp.Delete, exp.Insert, exp.Merge):
        if isinstance(node.parent, exp.When):  # of MERGE: its ON is the condition
            continue
        table = node.this.this if isinstance(node.this, exp.Schema) else node.this
        if not isinstance(table, exp.Table) or not table.name:
            continue
        name = _to_name(table, schema)
        if isinstance(node, exp.Merge):
            yield RowsWritten("MERGE", name, False)
        elif not isinstance(node, exp.Insert):
            how = "UPDATE" if isinstance(node, exp.Update) else "DELETE"
            where = node.args.get("where")
            yield RowsWritten(how, name, _is_always_true(where), _find_assignment(text), _find_narrow(where))
        elif isinstance(node.expression, exp.Query) and any(
            isinstance(source.this, exp.Identifier) for source in node.expression.find_all(exp.Table)
        ):
            yield RowsWritten("INSERT", name, False)


def _find_assignment(text: str) -> tuple[str, str] | None:
    """Column and value of `UPDATE t SET column = value`, if it is no more than that."""
    tokens = tokenize(text)
    outer = [n for n, (token, depth) in enumerate(iter_with_depth(tokens)) if depth == 0 and token.kind == "word"]
    words = {tokens[n].text.upper(): n for n in reversed(outer)}
    if tokens[0].text.upper() != "UPDATE" or "FROM" in words or "SET" not in words:
        return None
    end = min(words.get("WHERE", len(tokens)), words.get("RETURNING", len(tokens)))
    assignment = tokens[words["SET"] + 1 : end]
    if len(split_tokens(assignment)) > 1 or len(assignment) < 3 or assignment[1].text != "=":
        return None
    if volatility.find_most_volatile(find_calls(assignment[2:]))[1] is not False:
        return None
    return assignment[0].text, join_tokens(assignment[2:])


def _is_always_true(where: exp.Expr | None) -> bool:
    """No condition, or one that every row meets."""
    if where is None:
        return True
    condition = where.this.unnest()
    if isinstance(condition, exp.Boolean):
        return bool(condition.this)
    return (
        isinstance(condition, exp.EQ)
        and isinstance(condition.this, exp.Literal)
        and condition.this == condition.expression
    )


def _find_narrow(where: exp.Expr | None) -> frozenset[str]:
    """The columns that have to be a value that stands there."""
    if where is None:
        return frozenset()
    found: set[str] = set()
    for part in where.this.flatten() if isinstance(where.this, exp.And) else [where.this]:
        condition = part.unnest()
        column = condition.this
        values = (
            [condition.expression] if isinstance(condition, exp.EQ) else condition.args.get("expressions") or [None]
        )
        if (
            isinstance(condition, (exp.EQ, exp.In))
            and isinstance(column, exp.Column)
            and all(
                isinstance(value, exp.Literal) or (value and isinstance(value.this, exp.Literal)) for value in values
            )
        ):
            found.add(column.name if column.this.args.get("quoted") else column.name.lower())
    return frozenset(found)


def _to_name(table: exp.Table, schema: str) -> QualifiedName:
    def part(identifier: object) -> str:
        assert isinstance(identifier, exp.Identifier)
        return identifier.name if identifier.args.get("quoted") else identifier.name.lower()

    db = table.args.get("db")
    shown = ".".join(
        f'"{i.name}"' if i.args.get("quoted") else i.name for i in (db, table.this) if isinstance(i, exp.Identifier)
    )
    return QualifiedName(part(db) if db else schema, part(table.this), shown)


def _describe_error(error: SqlglotError) -> str:
    details = getattr(error, "errors", None)
    if details and details[0].get("description"):
        first = details[0]
        return f"{str(first['description']).rstrip('.')} near {first.get('highlight')!r}"
    return str(error).splitlines()[0]
