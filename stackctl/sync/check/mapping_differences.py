"""Which copies were made from other mappings than the files have now; reads only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stackctl.core.errors import StackctlError
from stackctl.mapping.definition import Kind, compare_definition
from stackctl.sync.scope import select_databases
from stackctl.sync.target_states import StateReader
from stackctl.sync.targets.protocol import NEVER_SYNCED, check_owner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from stackctl.config.settings import ExternalDatabase
    from stackctl.mapping.compile import Compiled
    from stackctl.sync.pipeline import Pipeline
    from stackctl.sync.scope import Scope
    from stackctl.sync.targets.protocol import TargetState


@dataclass(frozen=True)
class CopyDifference:
    """A copy against its mapping; `reasons` names the parts that differ.

    `new`: it was never made. `unfed`: no mapping of that name is sent there. `not-ours`: its table is somebody else's,
    as `error` says. `error`: it could not be asked.
    """

    tenancy: UUID
    database: str
    mapping: str
    change: Kind | Literal["new", "unfed", "not-ours", "error"]
    reasons: tuple[str, ...] = ()
    error: str | None = None


def find_differences(pipeline: Pipeline, scope: Scope) -> list[CopyDifference]:
    """All copies of these databases. Raises UsageError for a name that does not exist."""
    databases = select_databases(pipeline, scope)
    states = StateReader(pipeline, databases)
    return [one for database in databases for one in _compare_database(pipeline, states, database)]


def _compare_database(pipeline: Pipeline, states: StateReader, database: ExternalDatabase) -> Iterator[CopyDifference]:
    named = database.tenancy, database.id
    compiled = pipeline.compile_mappings(database)
    try:
        state = states.read(database)
        if state is not None:
            check_owner(state.owner, database.tenancy, f"the external database {database.id}")
    except StackctlError as error:
        yield from (CopyDifference(*named, one.mapping.name, "error", error=error.message) for one in compiled)
        return
    for one in compiled:
        try:
            kind, reasons = compare_copy(one, state)
        except StackctlError as error:
            change = "not-ours" if error.code == "not-ours" else "error"
            yield CopyDifference(*named, one.mapping.name, change, error=error.message)
        else:
            yield CopyDifference(*named, one.mapping.name, kind, reasons)
    for name in pipeline.find_unfed(database, state.cursors if state is not None else ()):
        yield CopyDifference(*named, name, "unfed")


def compare_copy(compiled: Compiled, state: TargetState | None) -> tuple[Kind | Literal["new"], tuple[str, ...]]:
    """How a copy differs from its mapping, and in what. Raises StateError `newer-stackctl`, `not-ours`."""
    name = compiled.mapping.name
    if state is not None and name in state.foreign:
        raise state.foreign[name]
    record = state.copies.get(name) if state is not None else None
    cursor = state.cursors.get(name) if state is not None else None
    if cursor is None or (record is None and cursor.sequence_id == NEVER_SYNCED):
        return "new", ()
    change = compare_definition(record.definition if record else None, compiled.mapping, compiled.dialect)
    return change.kind, change.reasons
