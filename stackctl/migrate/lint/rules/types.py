"""Advice about the types of columns: said once a file, and no reason to fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackctl.migrate.lint.registry import RuleMatch, rule
from stackctl.migrate.parser.facts import ColumnAdded

if TYPE_CHECKING:
    from stackctl.migrate.lint.schema_state import FileState

_SMALL = {"integer": "bigint", "smallint": "bigint", "serial": "bigserial", "smallserial": "bigserial"}


def _instead(fact: ColumnAdded, better: str) -> RuleMatch:
    column = fact.column
    array = "[]" if column.type.base.endswith("[]") else ""
    what = f"column {column.shown} of {fact.table} is {column.type.text}"
    return RuleMatch(what, f"-- when the column is made:\n--   {column.shown} {better}{array}")


@rule("char-type", "advice", "char(n)", why="it is padded with blanks, which compare and measure in surprising ways",
      fact=ColumnAdded)  # fmt: skip
def char_type(fact: ColumnAdded, state: FileState) -> RuleMatch | None:
    return _instead(fact, "text") if fact.column.type.base in ("char", "char[]") else None


@rule("timestamp-without-time-zone", "advice", "timestamp without time zone",
      why="it means another moment to every client that has another time zone", fact=ColumnAdded)  # fmt: skip
def timestamp_without_time_zone(fact: ColumnAdded, state: FileState) -> RuleMatch | None:
    type_ = fact.column.type
    precision = f"({type_.modifier})" if type_.modifier else ""
    return _instead(fact, f"timestamptz{precision}") if type_.base in ("timestamp", "timestamp[]") else None


@rule("json-type", "advice", "json", why="it can be neither compared nor indexed; jsonb can", fact=ColumnAdded)
def json_type(fact: ColumnAdded, state: FileState) -> RuleMatch | None:
    return _instead(fact, "jsonb") if fact.column.type.base in ("json", "json[]") else None


@rule("int-key", "advice", "a key of 4 bytes or less",
      why="after 2,147,483,647 rows, deleted ones included, inserts fail, and widening it rewrites the table",
      fact=ColumnAdded)  # fmt: skip
def int_key(fact: ColumnAdded, state: FileState) -> RuleMatch | None:
    column = fact.column
    if column.type.base not in _SMALL or not (column.key or column.serial or column.identity):
        return None
    return _instead(fact, _SMALL[column.type.base])
