"""What the commands of stackctl queue share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stackctl.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from stackctl.sync.queue.retries import Failure

Ids = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="Database ids, ids of tenancies, or TENANCY/DATABASE.")
]


def select_failing(failing: Sequence[Failure], ids: Sequence[str] | None) -> list[tuple[UUID, str]]:
    """The failing databases that are named, all when nothing is; UsageError for a name that fits none."""
    for id_ in ids or ():
        if not any(_is_named(failure, [id_]) for failure in failing):
            raise UsageError(
                f"no failing database is called {id_!r}",
                code="unknown-database",
                hint="`stackctl queue list` shows those that fail",
            )
    return list(dict.fromkeys((one.tenancy, one.database) for one in failing if ids is None or _is_named(one, ids)))


def _is_named(failure: Failure, ids: Sequence[str]) -> bool:
    return failure.database in ids or f"{failure.tenancy}/{failure.database}" in ids or str(failure.tenancy) in ids
