"""What of the backend's live schema is missing or different in the operated database, with the fix for each."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stackctl.backend import schema as expected
from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stackctl.postgres.connect import Connection

_SQL = load_statements(__file__)
_MIGRATE = "run `stackctl migrate up --bundled`; where that was applied before, restore what was dropped since"
# What stackctl inserts into: a column of somebody else's that must be filled makes that fail.
_TABLES_WRITTEN = frozenset({"DeletedRow", "OutgoingRequest", "ExternalDbSyncMetadata"})


@dataclass(frozen=True)
class Drift:
    """One finding. An error is what the sync does not work with; a warning concerns speed, or a single feature."""

    severity: Literal["warning", "error"]
    message: str
    hint: str


@dataclass(frozen=True)
class _ColumnState:
    """A column as it is; `optional`: an INSERT may leave it out."""

    type: str
    nullable: bool
    optional: bool


@dataclass(frozen=True)
class _Index:
    name: str
    primary: bool
    unique: bool
    valid: bool
    columns: tuple[str, ...]
    predicate: str | None


def find_drift(conn: Connection) -> Iterator[Drift]:
    """Every difference that matters, tables first. Names of indexes, further columns and labels do not."""
    names = {"tables": list(expected.tables())}
    columns: dict[str, dict[str, _ColumnState]] = defaultdict(dict)
    for table, column, *facts in conn.execute(_SQL["list_columns"], names):
        columns[table][column] = _ColumnState(*facts)
    indexes: dict[str, list[_Index]] = defaultdict(list)
    for table, name, primary, unique, valid, keys, predicate in conn.execute(_SQL["list_indexes"], names):
        indexes[table].append(_Index(name, primary, unique, valid, tuple(keys), predicate))
    for name, table in expected.tables().items():
        if name not in columns:
            vital = table.sequenced or name in expected.VITAL_TABLES
            yield Drift("error" if vital else "warning", f'table "{name}" is missing', _MIGRATE)
            continue
        yield from _check_columns(name, table, columns[name])
        if table.sequenced:
            yield from _check_key(name, table, indexes[name])
    for needed in expected.needed_indexes():
        if needed.table in columns:
            yield from _check_index(needed, indexes[needed.table])
    yield from _check_enums(conn)
    there = {row[0] for row in conn.execute(_SQL["list_functions"], {"names": list(expected.FUNCTIONS)})}
    for name in expected.FUNCTIONS:
        if name not in there:
            yield Drift("warning", f"function {name}() is missing: who calls it fails", _MIGRATE)


def _check_columns(name: str, table: expected.Table, found: dict[str, _ColumnState]) -> Iterator[Drift]:
    for column, wanted in table.columns.items():
        has = found.get(column)
        vital = name in expected.VITAL_TABLES or (
            table.sequenced and (column in expected.STAMPS or column in table.key)
        )
        severity: Literal["warning", "error"] = "error" if vital else "warning"
        alter = f'ALTER TABLE "{name}"'
        if has is None:
            default = " NOT NULL DEFAULT true" if column == "shouldUpdateSequenceId" else ""
            yield Drift(
                severity, f'"{name}"."{column}" is missing', f'{alter} ADD COLUMN "{column}" {wanted.type}{default}'
            )
        elif has.type != wanted.type:
            yield Drift(
                severity,
                f'"{name}"."{column}" is {has.type}, not {wanted.type}',
                f'{alter} ALTER COLUMN "{column}" TYPE {wanted.type} (this rewrites the table)',
            )
        elif has.nullable and not wanted.nullable:
            yield Drift(
                # A row without a mark would never be stamped.
                "error" if column == "shouldUpdateSequenceId" else "warning",
                f'"{name}"."{column}" may be null',
                f'{alter} ALTER COLUMN "{column}" SET NOT NULL',
            )
        elif wanted.nullable and not has.nullable:
            yield Drift(
                "error" if column in expected.STAMPS else "warning",
                f'"{name}"."{column}" must not be null',
                f'{alter} ALTER COLUMN "{column}" DROP NOT NULL',
            )
    if name in _TABLES_WRITTEN:
        for column in found.keys() - table.columns.keys():
            if not found[column].optional:
                yield Drift(
                    "error",
                    f'"{name}"."{column}" must be filled, and stackctl does not know it',
                    f'ALTER TABLE "{name}" ALTER COLUMN "{column}" SET DEFAULT …',
                )


def _check_key(name: str, table: expected.Table, indexes: Sequence[_Index]) -> Iterator[Drift]:
    wanted = ", ".join(f'"{column}"' for column in table.key)
    if not any(index.unique and index.valid and set(index.columns) == set(table.key) for index in indexes):
        yield Drift(
            "error", f'"{name}" has no primary key ({wanted})', f'ALTER TABLE "{name}" ADD PRIMARY KEY ({wanted})'
        )


def _check_index(needed: expected.NeededIndex, indexes: Sequence[_Index]) -> Iterator[Drift]:
    serving = [index for index in indexes if _serves(index, needed)]
    if any(index.valid for index in serving):
        return
    severity: Literal["warning", "error"] = "error" if needed.vital else "warning"
    if serving:
        name = serving[0].name
        yield Drift(severity, f'index "{name}" is INVALID', f'REINDEX INDEX CONCURRENTLY "{name}"')
        return
    unique = "UNIQUE " if needed.unique else ""
    why = "queueing fails" if needed.vital else "stamping or reading goes through the whole table"
    yield Drift(
        severity,
        f'"{needed.table}" has no {unique.lower()}index on {needed.definition}: {why}',
        f'CREATE {unique}INDEX CONCURRENTLY ON "{needed.table}" {needed.definition}',
    )


def _serves(index: _Index, needed: expected.NeededIndex) -> bool:
    if needed.unique:
        return index.unique and index.columns == needed.columns and index.predicate == '("startedFulfillingAt" IS NULL)'
    if needed.alternative and index.predicate is None:
        return index.columns[: len(needed.alternative)] == needed.alternative
    if index.columns[: len(needed.columns)] != needed.columns:
        return False
    # An index of all rows serves where one of some rows would do.
    return index.predicate is None or (needed.predicate is not None and needed.predicate in index.predicate)


def _check_enums(conn: Connection) -> Iterator[Drift]:
    found: dict[str, list[str]] = dict(conn.execute(_SQL["list_enums"]).fetchall())
    for name, labels in expected.enums().items():
        missing = [label for label in labels if label not in found.get(name, ())]
        if name not in found:
            yield Drift("warning", f'enum type "{name}" is missing', _MIGRATE)
        elif missing:
            yield Drift(
                "warning",
                f'enum type "{name}" lacks {", ".join(missing)}',
                "; ".join(f"ALTER TYPE \"{name}\" ADD VALUE '{label}'" for label in missing),
            )
