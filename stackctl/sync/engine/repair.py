"""Rows of a copy put right by their keys: found in parts that fit in memory, and made what they are in the source.

A file takes any text for an id, so a copy may have keys that the source can't even be asked for: they are gone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from psycopg.types.json import Jsonb

from stackctl.mapping.checksums import compile_checksums

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from uuid import UUID

    from stackctl.mapping.checksums import Key, Sums
    from stackctl.mapping.compile import Compiled
    from stackctl.mapping.model import ColumnType, Mapping
    from stackctl.sync.engine.rejected_rows import RejectedKey
    from stackctl.sync.engine.source import Source
    from stackctl.sync.targets.protocol import Rows, Target

KEYS_AT_ONCE = 2_000  # keys that are compared or repaired together
HASHES_AT_ONCE = 200_000  # rows of a side whose hashes are in memory

_DAY = "(?:[0-9]{4,6}|[1-4][0-9]{6})-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
_TIME = " [0-2][0-9]:[0-5][0-9]:[0-5][0-9](?:[.][0-9]{1,6})?"
_FORMS: dict[ColumnType, re.Pattern[str]] = {
    "uuid": re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "text": re.compile("[^\\x00\\ud800-\\udfff]*"),
    "boolean": re.compile("[01]"),
    "integer": re.compile("-?[0-9]{1,10}"),
    "bigint": re.compile("-?[0-9]{1,19}"),
    "numeric": re.compile("-?(?:[0-9]+(?:[.][0-9]+)?|Infinity)|NaN"),
    "date": re.compile(f"-?infinity|{_DAY}(?: BC)?"),
    "timestamp": re.compile(f"-?infinity|{_DAY}{_TIME}(?: BC)?"),
    "timestamptz": re.compile(f"(?:-?infinity|{_DAY}{_TIME}(?: BC)?)[+]00"),
}
_BITS: dict[ColumnType, int] = {"integer": 31, "bigint": 63}


def can_be_in_source(mapping: Mapping, key: Key) -> bool:
    """Whether the source can have this key."""
    return all(
        _FORMS[column.type].fullmatch(text)
        and (column.type not in _BITS or -(1 << _BITS[column.type]) <= int(text) < 1 << _BITS[column.type])
        for column, text in zip(mapping.key_columns, key, strict=True)
    )


def repair_rows(source: Source, target: Target, compiled: Compiled, tenancy: UUID, keys: Sequence[Key]) -> None:
    """Make the rows with these keys what they are in the source, under the lock of the cursor."""
    possible: list[RejectedKey] = [list(key) for key in keys if can_be_in_source(compiled.mapping, key)]
    if possible:
        target.apply_batch(compiled, source.open_rows_by_key(compiled, tenancy, possible))
    impossible = [key for key in keys if not can_be_in_source(compiled.mapping, key)]
    if impossible:
        target.apply_batch(compiled, cast("Rows", _DeletedKeys(compiled, impossible)))


def find_extra_rows(source: Source, target: Target, compiled: Compiled, tenancy: UUID) -> Iterator[list[Key]]:
    """Keys of the copy that the source does not have, at most KEYS_AT_ONCE at a time; both sides may go on changing."""
    # Rows are read as if the key were all of them: some are too wide to be hashed for nothing.
    keys_only = replace(compiled, mapping=replace(compiled.mapping, columns=compiled.mapping.key_columns))
    there = compile_checksums(keys_only.mapping, target.dialect).source.by_key
    for buckets in split_differing_buckets({}, target.sum_hashes(keys_only)):
        found = [tuple(key) for *key, _ in target.read_hashes(keys_only, buckets)]
        for start in range(0, len(found), KEYS_AT_ONCE):
            part = found[start : start + KEYS_AT_ONCE]
            asked = Jsonb([key for key in part if can_be_in_source(compiled.mapping, key)])
            with source.open_snapshot(compiled.mapping.name) as conn:
                kept = {tuple(key) for *key, _ in conn.execute(there, {"tenancy_id": tenancy, "keys": asked})}
            if extra := [key for key in part if key not in kept]:
                yield extra


def split_differing_buckets(ours: Sums, theirs: Sums) -> Iterator[list[int]]:
    """The buckets that differ, in parts of which either side holds no more than HASHES_AT_ONCE rows or so."""
    nothing = (0, 0)
    part: list[int] = []
    rows = 0
    for bucket in sorted(ours.keys() | theirs.keys()):
        mine, their = ours.get(bucket, nothing), theirs.get(bucket, nothing)
        if mine == their:
            continue
        part.append(bucket)
        rows += max(mine[0], their[0])
        if rows >= HASHES_AT_ONCE:
            yield part
            part, rows = [], 0
    if part:
        yield part


@dataclass(frozen=True)
class _DeletedKeys:
    """A batch that says of keys that they are deleted, for keys that the source can't be asked for."""

    compiled: Compiled
    keys: Sequence[Key]

    def read_chunks(self, size: int) -> Iterator[list[tuple[Any, ...]]]:
        names = list(self.compiled.mapping.key)
        for start in range(0, len(self.keys), size):
            given = (dict(zip(names, key, strict=True)) for key in self.keys[start : start + size])
            yield [(0, True, *(key.get(column.name) for column in self.compiled.mapping.columns)) for key in given]

    def read_csv(self) -> Iterator[bytes]:
        for chunk in self.read_chunks(KEYS_AT_ONCE):
            for row in chunk:
                values = ("" if value is None else '"' + str(value).replace('"', '""') + '"' for value in row)
                yield (",".join(values) + "\n").encode()
