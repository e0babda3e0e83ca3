"""A batch of not so many rows, sent as arrays of the statement that merges it, one a column.

A staging table costs the target some fifty catalog rows, a file or two and a longer commit, whatever it holds: for the
page that a steady stream of changes makes that is more than all the rest, and a service that does it many times a
second bloats the catalog. Here a page of any size is one and the same statement, which the server need not plan anew.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString, cast

from psycopg import sql
from psycopg.adapt import Dumper
from psycopg.postgres import types as known_types
from psycopg.pq import Format

from stackctl.mapping.target_statements import TYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stackctl.mapping.compile import Compiled
    from stackctl.postgres.connect import Connection

MAX_BYTES = 64 * 1024  # of a stream that may be one
MAX_ROWS = 200  # beyond, taking the fields apart costs more than the staging table

_HEADER = struct.Struct("!11sII")  # signature, flags, length of the extension
_COUNT = struct.Struct("!h")
_LENGTH = struct.Struct("!i")
_ARRAY = struct.Struct("!iiIii")  # dimensions, whether there may be nulls, type of the elements; how many, from which


@dataclass(frozen=True)
class _Array:
    """The fields of a column as they came out of a COPY, each behind its length, as an array's elements are."""

    type_: str
    fields: Sequence[bytes]


class _ArrayDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: _Array) -> bytes:
        return _ARRAY.pack(1, 1, known_types[obj.type_].oid, len(obj.fields), 1) + b"".join(obj.fields)


def register_dumper(conn: Connection) -> None:
    """Let a connection send the values of inline batches."""
    conn.adapters.register_dumper(_Array, _ArrayDumper)


@dataclass(frozen=True)
class InlineBatch:
    """Rows by column, each field behind its length: sequence id, whether it was deleted, the columns of the mapping."""

    columns: Sequence[Sequence[bytes]]

    @classmethod
    def from_copy_stream(cls, stream: bytes) -> InlineBatch | None:
        """The rows of a whole binary COPY stream; None when there are too many."""
        columns = _split_columns(stream)
        return None if columns is None else cls(columns)

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self.columns[0]) if self.columns else 0

    @property
    def highest(self) -> int:
        """The highest sequence id, which every row has."""
        return max(int.from_bytes(field[_LENGTH.size :], signed=True) for field in self.columns[0])

    @property
    def deleted(self) -> int:
        """How many of the rows are gone."""
        return sum(field[_LENGTH.size :] == b"\1" for field in self.columns[1])

    def to_values(self, compiled: Compiled) -> list[_Array]:
        """What `to_statement` takes."""
        return [_Array(type_, fields) for type_, fields in zip(_list_types(compiled), self.columns, strict=True)]


def to_statement(compiled: Compiled, statement: str) -> sql.Composed:
    """The statement, reading the rows of an inline batch where it names the staging table."""
    names = ["_stack_sequence_id", "_stack_deleted", *(column.name for column in compiled.mapping.columns)]
    arrays = ", ".join(f"%b::{type_}[]" for type_ in _list_types(compiled))
    return sql.SQL("WITH {} ({}) AS (SELECT * FROM unnest({})) {}").format(
        sql.Identifier(compiled.staging),
        sql.SQL(", ").join(map(sql.Identifier, names)),
        sql.SQL(cast("LiteralString", arrays)),
        sql.SQL(cast("LiteralString", statement.replace("%", "%%"))),
    )


def _list_types(compiled: Compiled) -> list[str]:
    return ["bigint", "boolean", *(TYPES["postgres"][column.type] for column in compiled.mapping.columns)]


def _split_columns(stream: bytes) -> list[list[bytes]] | None:
    at = _HEADER.size + _HEADER.unpack_from(stream)[2]
    columns: list[list[bytes]] = []
    # Bound once: this is what a page of changes costs here.
    adders: list[Callable[[bytes], None]] = []
    read_length = _LENGTH.unpack_from
    rows = 0
    while (count := _COUNT.unpack_from(stream, at)[0]) >= 0:
        rows += 1
        if rows > MAX_ROWS:
            return None
        if rows == 1:
            columns = [[] for _ in range(count)]
            adders = [column.append for column in columns]
        at += _COUNT.size
        for add in adders:
            (length,) = read_length(stream, at)
            end = at + 4 + length if length > 0 else at + 4
            add(stream[at:end])
            at = end
    return columns
