"""A statement parted into its narrow and its wide rows: the narrow ones may be read many at a time."""

# ruff: noqa: S608 - what is composed is a compiled statement and names made here.

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

NARROW = 16 * 1024  # bytes of a row; hundreds of such rows may be in memory


def compose_parts(statement: LiteralString, types: Sequence[str]) -> tuple[LiteralString, LiteralString]:
    """The statement with each row's width before its columns, which are null where that is above NARROW; and the rest.

    `types` are those of the statement's columns.
    """
    columns = [f"c{number}" for number in range(len(types))]
    texts = [
        f"coalesce(octet_length({name}), 0)" for name, type_ in zip(columns, types, strict=True) if type_ == "text"
    ]
    width = " + ".join([str(8 * len(columns)), *texts])
    rows = f"(SELECT {width} AS width, r.* FROM (\n{statement}\n) AS r ({', '.join(columns)}) OFFSET 0) AS sized"
    narrow = ", ".join(f"CASE WHEN width <= {NARROW} THEN {column} END" for column in columns)
    return (
        cast("LiteralString", f"SELECT width, {narrow} FROM {rows}"),
        cast("LiteralString", f"SELECT {', '.join(columns)} FROM {rows} WHERE width > {NARROW}"),
    )
