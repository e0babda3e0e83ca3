"""What two sides of a copy are compared by: a 64-bit hash a row, and sums of hashes over buckets of keys.

One row has one hash wherever it is kept: PostgreSQL computes it by the statements made here, `Hasher` for rows that
are at hand. Both work on one spelling of a row: the columns' values as a SQLite copy keeps them, separated by `|`, and
null as nothing at all. Text stands behind its length, so that none looks like a separator; JSON ends by its own rules.
"""

# ruff: noqa: S608 - this module writes SQL: names are quoted, values are parameters.
from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass
from hashlib import md5
from math import isnan
from typing import TYPE_CHECKING, Any, LiteralString, cast

from stackctl.mapping.compile import compile_mapping, convert_expression, quote_for_driver, to_from_clauses
from stackctl.mapping.sql_text import quote, to_driver_sql
from stackctl.mapping.target_statements import POSTGRES_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from stackctl.mapping.dialect import Dialect
    from stackctl.mapping.model import Column, ColumnType, Dependency, Mapping

    Spell = Callable[[Any], str]

WIDE = 1024 * 1024  # characters of a row that is hashed piece by piece
BUCKETS = 4096  # a power of two: a thousandth of a large table is what a difference makes both sides send

Key = tuple[str, ...]  # the text of each key column, in order of the mapping's key
Sums = dict[int, tuple[int, int]]  # bucket: rows, and the sum of their hashes
_TENANCY = "%(tenancy_id)s::uuid"
_CURSOR = "%(cursor)s::bigint"
_KEYS = "jsonb_array_elements(%(keys)s::jsonb) AS given (key)"


@dataclass(frozen=True)
class Side:
    """The statements of one side; rows of `hashes` and `by_key` are the key's columns as text and the row's hash.

    - `sums`: bucket, rows, sum of hashes
    - `hashes` (wanted: array of buckets)
    - `by_key` (keys: a JSON array of arrays of text): of those that exist
    """

    sums: LiteralString
    hashes: LiteralString
    by_key: LiteralString


@dataclass(frozen=True)
class Checksums:
    """The statements that compare one mapping. Those on the source take `tenancy_id` as well.

    `in_flight` (tenancy_id, cursor, keys): those of the keys whose row, tombstone or dependency has a change that was
    not sent yet.
    """

    source: Side
    in_flight: LiteralString


def compile_checksums(mapping: Mapping, dialect: Dialect) -> Checksums:
    """How to compare `mapping` with a copy of this dialect. The mapping must have passed its check."""
    everything = f"(\n{to_driver_sql(mapping.select, _TENANCY)}\n) AS m"
    # Typed as in PostgreSQL, whatever the copy is: the hash does its own conversion.
    named = f"({compile_mapping(mapping, 'postgres').by_key}\n) AS m WHERE NOT m._stack_deleted"
    return Checksums(_side(mapping, dialect, everything, named), _literal(_in_flight(mapping, dialect)))


def compile_table_checksums(mapping: Mapping) -> Side:
    """The statements for a copy in PostgreSQL."""
    table = f"{quote(mapping.target)} AS m"
    key = ", ".join(f"m.{quote(c.name)}::{POSTGRES_TYPES[c.type]}" for c in mapping.key_columns)
    given = f"SELECT {_given(mapping)} FROM {_KEYS}"
    # An array of one column's values is looked up in the index, whatever the planner believes of the table.
    wanted = f"{key} = ANY (ARRAY({given}))" if len(mapping.key) == 1 else f"({key}) IN ({given})"
    return _side(mapping, "postgres", table, f"{table} WHERE {wanted}")


def _given(mapping: Mapping) -> str:
    types = [POSTGRES_TYPES[c.type] for c in mapping.key_columns]
    return ", ".join(f"(given.key ->> {n})::{type_}" for n, type_ in enumerate(types))


def _side(mapping: Mapping, dialect: Dialect, everything: str, named: str) -> Side:
    keys = [_key_text(f"m.{quote(c.name)}", c, dialect) for c in mapping.key_columns]
    spelled = ", '|', ".join(keys)
    bucket = f"('x' || left({_md5(spelled)}, 8))::bit(32)::bigint & {BUCKETS - 1}"
    hash_ = f"('x' || left({_md5(_spelled(mapping.columns))}, 16))::bit(64)::bigint"
    sums = f"SELECT {bucket} AS bucket, {hash_} AS hash FROM {everything}"
    found = f"SELECT {', '.join(keys)}, {hash_} FROM"
    return Side(
        sums=_literal(f"SELECT bucket, count(*), sum(hash) FROM ({sums}) AS hashed GROUP BY bucket"),
        hashes=_literal(f"{found} {everything} WHERE {bucket} = ANY (%(wanted)s::bigint[])"),
        by_key=_literal(f"{found} {named}"),
    )


def spell_key(mapping: Mapping, dialect: Dialect, key: Iterable[object]) -> Key:
    """A key of the source as these statements give it."""
    spell = [_numeric if _is_trimmed(column, dialect) else str for column in mapping.key_columns]
    return tuple(one(value) for one, value in zip(spell, key, strict=True))


def _is_trimmed(column: Column, dialect: Dialect) -> bool:
    """Whether zeros at the end are left off: DuckDB's numbers have a scale of their own, others keep the source's."""
    return column.type == "numeric" and dialect == "duckdb"


def _key_text(expression: str, column: Column, dialect: Dialect) -> str:
    if _is_trimmed(column, dialect):
        return f"trim_scale(({expression})::numeric)::text"
    return f"{convert_expression(expression, column, 'sqlite')}::text"


def _literal(statement: str) -> LiteralString:
    return cast("LiteralString", statement)


def _md5(spelled: str) -> str:
    return f"md5(convert_to(concat({spelled}), 'UTF8'))"


def _spelled(columns: Iterable[Column]) -> str:
    return ", '|', ".join(_spelling(column) for column in columns)


def _spelling(column: Column) -> str:
    value = convert_expression(f"m.{quote(column.name)}", column, "sqlite")
    if column.type == "text":
        return f"length({value}), ':', {value}"
    if column.type == "double":
        # Its bits; adding zero makes one zero of the two. There are many NaN.
        return f"CASE WHEN {value} = 'NaN' THEN 'NaN' ELSE encode(float8send({value} + 0), 'hex') END"
    return f"trim_scale({value}::numeric)" if column.type == "numeric" else value


class Hasher:
    """Hashes rows of one mapping that are spelled as in a SQLite copy: numbers as numbers, everything else as text."""

    def __init__(self, mapping: Mapping) -> None:
        names = [column.name for column in mapping.columns]
        self._key = [names.index(name) for name in mapping.key]
        self._spell = [_SPELL.get(column.type, _plain) for column in mapping.columns]

    def key(self, row: Sequence[Any]) -> Key:
        return tuple(str(row[position]) for position in self._key)

    def spelled(self, row: Sequence[Any]) -> str:
        return "|".join(self._spell_values(row))

    def _spell_values(self, row: Sequence[Any]) -> list[str]:
        return [spell(value) for spell, value in zip(self._spell, row, strict=True)]

    def hash(self, row: Sequence[Any]) -> int:
        parts = self._spell_values(row)
        digest = _digest("|".join(parts)) if sum(map(len, parts)) < WIDE else _digest_in_pieces(parts)
        return int.from_bytes(digest[:8], "big", signed=True)

    def sums(self, rows: Iterable[Sequence[Any]]) -> Sums:
        count: Counter[int] = Counter()
        total: Counter[int] = Counter()
        for row in rows:
            bucket = _bucket(self.key(row))
            count[bucket] += 1
            total[bucket] += self.hash(row)
            del row  # before the next one is read: each may have hundreds of megabytes
        return {bucket: (count[bucket], total[bucket]) for bucket in count}

    def hashes(self, rows: Iterable[Sequence[Any]], wanted: Collection[int]) -> list[tuple[Any, ...]]:
        """As `Side.hashes` yields them."""
        found: list[tuple[Any, ...]] = []
        for row in rows:
            key = self.key(row)
            if _bucket(key) in wanted:
                found.append((*key, self.hash(row)))
            del row
        return found


def _digest(text: str) -> bytes:
    return md5(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()


def _digest_in_pieces(parts: list[str]) -> bytes:
    """The same of the parts joined by `|`, without another copy of what may be hundreds of megabytes."""
    found = md5(usedforsecurity=False)
    for n, part in enumerate(parts):
        found.update(b"|" if n else b"")
        for start in range(0, len(part), WIDE):
            found.update(part[start : start + WIDE].encode("utf-8", "surrogatepass"))
    return found.digest()


def _bucket(key: Key) -> int:
    return int.from_bytes(_digest("|".join(key))[:4], "big") & (BUCKETS - 1)


def _plain(value: Any) -> str:
    return "" if value is None else str(value)


def _free(value: Any) -> str:
    # SQLite keeps whatever somebody put there.
    text = value if isinstance(value, str) else _plain(value)
    return ":" if value is None else f"{len(text)}:{text}"


def _double(value: Any) -> str:
    if not isinstance(value, int | float):
        return _plain(value)
    return "NaN" if isnan(value) else struct.pack(">d", value + 0.0).hex()


def _numeric(value: Any) -> str:
    text = _plain(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


_SPELL: dict[ColumnType, Spell] = {"text": _free, "double": _double, "numeric": _numeric}


def _in_flight(mapping: Mapping, dialect: Dialect) -> str:
    rows, tombstones = to_from_clauses(mapping)
    columns, sources = mapping.key_columns, list(mapping.key.values())
    key = [f"{quote(source)}::{POSTGRES_TYPES[c.type]}" for c, source in zip(columns, sources, strict=True)]
    names = [f"k{n}" for n in range(len(key))]
    wanted = [
        f"({expression})::text AS {name}"
        for number, dependency in enumerate(mapping.depends_on)
        for name, expression in _wanted(number, dependency).items()
    ]
    moving = f'("shouldUpdateSequenceId" IS TRUE OR "sequenceId" > {_CURSOR})'
    output = [*(f"{k} AS {name}" for k, name in zip(key, names, strict=True)), f"{moving} AS moving", *wanted]
    found = ", ".join(_key_text(name, c, dialect) for name, c in zip(names, columns, strict=True))
    gone = [f'"primaryKey"->>{quote_for_driver(source)}' for source in sources]
    deleted = ", ".join(
        _key_text(text, c, dialect) if _is_trimmed(c, dialect) else text for text, c in zip(gone, columns, strict=True)
    )
    given = f"SELECT {_given(mapping)} FROM {_KEYS}"
    named = f"{key[0]} = ANY (ARRAY({given}))" if len(key) == 1 else f"({', '.join(key)}) IN ({given})"
    given_text = ", ".join(f"given.key ->> {n}" for n in range(len(key)))
    parts = [
        f"SELECT {found} FROM own WHERE moving",
        f"SELECT {deleted} FROM {tombstones} AND {moving} AND ({deleted}) IN (SELECT {given_text} FROM {_KEYS})",
        *(arm for n, dependency in enumerate(mapping.depends_on) for arm in _waiting(n, dependency, found)),
    ]
    own = f"SELECT {', '.join(output)} FROM {rows} AND {named}"
    return f"WITH own AS MATERIALIZED ({own})\n" + "\nUNION\n".join(parts)


def _wanted(number: int, dependency: Dependency) -> dict[str, str]:
    """Names for what the dependency's columns must equal, and the expressions over the source's row."""
    return {f"d{number}_{n}": expression.replace("%", "%%") for n, expression in enumerate(dependency.on.values())}


def _waiting(number: int, dependency: Dependency, found: str) -> Iterator[str]:
    """A changed or deleted row of a dependency that has not marked its parents yet."""
    names = _wanted(number, dependency)
    changed = " AND ".join(f"c.{quote(of)}::text = own.{name}" for of, name in zip(dependency.on, names, strict=True))
    # Of whichever table: few tombstones wait, and the name that the dependency's deletes go by may be another.
    gone = " AND ".join(
        f'coalesce(c."primaryKey" ->> {quote_for_driver(of)}, c.data ->> {quote_for_driver(of)}) = own.{name}'
        for of, name in zip(dependency.on, names, strict=True)
    )
    for table, same in ((dependency.table, changed), ("DeletedRow", gone)):
        yield (
            f"SELECT {found} FROM own WHERE EXISTS (SELECT FROM {quote(table)} AS c"
            f' WHERE c."shouldUpdateSequenceId" AND c."tenancyId" = {_TENANCY} AND {same})'
        )
