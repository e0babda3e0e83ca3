"""A table of a file rebuilt beside the old one, which it takes the place of, in one transaction.

Readers see the old table until the commit. What is not stackctl's comes along: columns with their values, indexes,
triggers; and views must still work, or nothing happens.
"""

# ruff: noqa: S608 - neither SQLite nor DuckDB has a composer of names: they are quoted here.
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stackctl.mapping.compile import compile_mapping
from stackctl.mapping.definition import list_shape
from stackctl.mapping.sql_text import quote
from stackctl.sync.targets.mapping_changes import not_rebuilt_error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stackctl.mapping.compile import Compiled
    from stackctl.sync.targets.protocol import AppliedBatch, CopyRecord

BESIDE = "_stack_rebuilt"  # the table under construction; nobody else sees it


@dataclass(frozen=True)
class FileTable:
    """A table as it stands: columns (name, type, default), what goes with it (name, statement), the file's views."""

    columns: Sequence[tuple[str, str, str | None]]
    objects: Sequence[tuple[str, str]]
    views: Sequence[str]


def rebuild_file_table(
    compiled: Compiled,
    table: FileTable,
    record: CopyRecord | None,
    *,
    execute: Callable[[str], Any],
    fill: Callable[[Compiled], AppliedBatch],
    error: type[Exception],
    where: str,
) -> AppliedBatch:
    """Make the table anew from its mapping, inside the transaction that holds the cursor.

    `fill` loads the rows into an empty table that is given in place of the mapping's; `error` is the driver's.
    Raises StateError `mapping-changed` when something that hangs on the table could not be kept.
    """
    mapping, target = compiled.mapping, quote(compiled.mapping.target)
    beside = compile_mapping(replace(mapping, target=BESIDE), compiled.dialect)
    shape = list_shape(record.definition if record else None)
    ours = {column.name for column in mapping.columns} | set(shape[0] if shape else ())
    kept = [column for column in table.columns if column[0] not in ours]
    same_key = shape is None or set(shape[1]) == set(mapping.key)
    if kept and not same_key:
        names = ", ".join(name for name, _, _ in kept)
        raise not_rebuilt_error(compiled, where, f"its columns {names} are not stackctl's, and the key is another now")
    working = [view for view in table.views if _works(execute, view, error)]
    execute(beside.create_table)
    applied = fill(beside)
    for name, type_, default in kept:
        execute(f"ALTER TABLE {BESIDE} ADD COLUMN {quote(name)} {type_}{f' DEFAULT {default}' if default else ''}")
    if kept:
        same = " AND ".join(f"t.{quote(key)} = {BESIDE}.{quote(key)}" for key in mapping.key)
        values = (f"{quote(name)} = (SELECT t.{quote(name)} FROM {target} AS t WHERE {same})" for name, _, _ in kept)
        execute(f"UPDATE {BESIDE} SET {', '.join(values)} WHERE EXISTS (SELECT 1 FROM {target} AS t WHERE {same})")
    try:
        execute(f"DROP TABLE {target}")
    except error as problem:
        raise not_rebuilt_error(compiled, where, str(problem).splitlines()[0]) from problem
    execute(f"ALTER TABLE {BESIDE} RENAME TO {target}")
    for name, statement in table.objects:
        try:
            execute(statement)
        except error as problem:
            reason = f"{name}, which is not stackctl's, would be lost: {str(problem).splitlines()[0]}"
            raise not_rebuilt_error(compiled, where, reason) from problem
    for view in working:
        if not _works(execute, view, error):
            raise not_rebuilt_error(compiled, where, f"the view {view} reads what would be lost")
    return applied


def _works(execute: Callable[[str], Any], view: str, error: type[Exception]) -> bool:
    try:
        execute(f"SELECT * FROM {quote(view)} LIMIT 0")
    except error:
        return False
    return True
