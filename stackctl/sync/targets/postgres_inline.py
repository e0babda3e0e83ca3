"""A batch of a few rows, sent as values of the statement that merges it.

A staging table costs the target a dozen catalog rows and a longer commit, whatever it holds: for the row or two that a
change mostly is, that is more than all the rest, and a service that does it many times a second bloats the catalog.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, LiteralString, cast

from psycopg import sql
from psycopg.adapt import Dumper
from psycopg.pq import Format

from stackctl.mapping.target_statements import TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stackctl.mapping.compile import Compiled
    from stackctl.postgres.connect import Connection

MAX_BYTES = 16_384  # of a stream that may be one
MAX_ROWS = 20

_HEADER = struct.Struct("!11sII")  # signature, flags, length of the extension
_COUNT = struct.Struct("!h")
_LENGTH = struct.Struct("!i")


@dataclass(frozen=True)
class _Field:
    """A value in its type's binary form, as it came out of a COPY."""

    data: bytes


class _FieldDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: _Field) -> bytes:
        return obj.data


def register_dumper(conn: Connection) -> None:
    """Let a connection send the values of inline batches."""
    conn.adapters.register_dumper(_Field, _FieldDumper)


@dataclass(frozen=True)
class InlineBatch:
    """Rows as fields: sequence id, whether it was deleted, and the columns of the mapping."""

    rows: tuple[tuple[_Field | None, ...], ...]

    @classmethod
    def from_copy_stream(cls, stream: bytes) -> InlineBatch | None:
        """The rows of a whole binary COPY stream; None when there are too many."""
        rows = tuple(_parse_rows(stream))
        return cls(rows) if len(rows) <= MAX_ROWS else None

    @property
    def highest(self) -> int:
        """The highest sequence id, which every row has."""
        return max(int.from_bytes(row[0].data, signed=True) for row in self.rows if row[0] is not None)

    @property
    def deleted(self) -> int:
        """How many of the rows are gone."""
        return sum(row[1] is not None and row[1].data != b"\0" for row in self.rows)

    @property
    def values(self) -> list[_Field | None]:
        return list(chain.from_iterable(self.rows))

    def to_statement(self, compiled: Compiled, statement: str) -> sql.Composed:
        """The statement, reading these rows where it names the staging table; it takes `values`."""
        columns = compiled.mapping.columns
        names = ["_stack_sequence_id", "_stack_deleted", *(column.name for column in columns)]
        types = ["bigint", "boolean", *(TYPES["postgres"][column.type] for column in columns)]
        row = "(" + ", ".join(f"%b::{type_}" for type_ in types) + ")"
        return sql.SQL("WITH {} ({}) AS (VALUES {}) {}").format(
            sql.Identifier(compiled.staging),
            sql.SQL(", ").join(map(sql.Identifier, names)),
            sql.SQL(cast("LiteralString", ", ".join([row] * len(self.rows)))),
            sql.SQL(cast("LiteralString", statement.replace("%", "%%"))),
        )


def _parse_rows(stream: bytes) -> Iterator[tuple[_Field | None, ...]]:
    at = _HEADER.size + _HEADER.unpack_from(stream)[2]
    while True:
        (count,) = _COUNT.unpack_from(stream, at)
        at += _COUNT.size
        if count < 0:
            return
        fields: list[_Field | None] = []
        for _ in range(count):
            (length,) = _LENGTH.unpack_from(stream, at)
            at += _LENGTH.size
            fields.append(None if length < 0 else _Field(stream[at : at + length]))
            at += max(length, 0)
        yield tuple(fields)
