"""Which external databases a command was asked to work on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackctl.core.errors import StackctlError, StateError, UsageError, find_nearest_name, unknown_name_error
from stackctl.sync.queue import entries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from stackctl.config.settings import ExternalDatabase
    from stackctl.postgres.connect import Connection
    from stackctl.sync.pipeline import Pipeline


@dataclass(frozen=True)
class Scope:
    """What was asked for; None stands for all of it."""

    tenancies: Sequence[UUID] | None
    databases: Sequence[str] | None = None
    mappings: Sequence[str] | None = None


def select_databases(pipeline: Pipeline, scope: Scope) -> list[ExternalDatabase]:
    """The configured databases that the scope names; UsageError for a name that there is not."""
    for name in scope.mappings or ():
        pipeline.find_mapping(name)
    for tenancy in scope.tenancies or ():
        if tenancy not in pipeline.databases:
            near = find_nearest_name(str(tenancy), map(str, pipeline.databases))
            raise UsageError(
                f"tenancy {tenancy} has no external database in the configuration",
                code="unknown-tenancy",
                hint=f"did you mean {near}?"
                if near
                else "add it under `tenancies:` in stackctl.yaml; `stackctl config show` lists those that are there",
            )
    tenancies = pipeline.databases if scope.tenancies is None else dict.fromkeys(scope.tenancies)
    found = [database for tenancy in tenancies for database in pipeline.databases[tenancy]]
    if scope.databases is not None:
        ids = [database.id for database in found]
        for name in scope.databases:
            if name not in ids:
                raise unknown_name_error("external database", name, ids)
        found = [database for database in found if database.id in scope.databases]
    if scope.mappings is not None:
        found = [d for d in found if d.mappings is None or not set(scope.mappings).isdisjoint(d.mappings)]
    return found


def find_unknown_tenancies(
    conn: Connection, databases: Sequence[ExternalDatabase], scope: Scope
) -> dict[UUID, StackctlError]:
    """Tenancies of these databases that the operated database does not know, each with what to say of it.

    Raises UsageError for one that was named.
    """
    tenancies = {database.tenancy for database in databases}
    unknown = tenancies - entries.find_existing_tenancies(conn, tenancies)
    message = "tenancy {} does not exist in the operated database"
    if scope.tenancies is not None and unknown:
        raise UsageError(
            message.format(min(unknown)),
            code="unknown-tenancy",
            hint="`stackctl tenancies list` shows those that are there; correct the command or stackctl.yaml",
        )
    return {
        one: StateError(message.format(one), code="unknown-tenancy", hint="correct stackctl.yaml") for one in unknown
    }
