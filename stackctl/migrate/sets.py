"""Sets of migrations in one schema: the operator's own, and stackctl's, each applied in its order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from stackctl.core.bundled import find_bundled
from stackctl.core.errors import StackctlError
from stackctl.migrate.folder import discover, list_files
from stackctl.migrate.runner import history, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from stackctl.migrate.files import Migration
    from stackctl.migrate.runner.run import RunResult
    from stackctl.migrate.runner.session import Connection


@dataclass(frozen=True)
class MigrationSet:
    """Migrations that are applied in order. `history`: the name of the one that keeps what is applied, empty for the
    default. `names_elsewhere`: what that history keeps for another set. `bundled`: they are stackctl's own.
    """

    migrations: tuple[Migration, ...]
    history: str = ""
    names_elsewhere: frozenset[str] = frozenset()
    bundled: bool = False


def make_own_set(migrations: tuple[Migration, ...], history: str) -> MigrationSet:
    """The operator's own. The default history may keep stackctl's as well."""
    elsewhere = set[str]() if history else _list_bundled_names() - {migration.name for migration in migrations}
    return MigrationSet(migrations, history, frozenset(elsewhere))


def complete_sets(
    conn: Connection, own: MigrationSet | None, schema: str, *, bundled: bool = False
) -> tuple[MigrationSet, ...]:
    """The sets that the schema is migrated with: the operator's own, if there is one, and behind it stackctl's.

    Where there is an own one, stackctl's counts if it is asked for (`bundled`), or once any of it was applied. Writes
    nothing. Raises ServiceError (`permission-denied`).
    """
    if own is None:
        return (MigrationSet(discover(find_bundled("migrations")), bundled=True),)
    begun = history.read_progress(conn, schema)
    # Whoever has copied stackctl's files into a folder of his own applies them from there.
    copied = set[str]() if own.history else {migration.name for migration in own.migrations}
    if not bundled and begun.keys().isdisjoint(_list_bundled_names() - copied):
        return (own,)
    rest = tuple(migration for migration in discover(find_bundled("migrations")) if migration.name not in copied)
    elsewhere = frozenset(begun) - {migration.name for migration in rest}
    return (own, MigrationSet(rest, names_elsewhere=elsewhere, bundled=True)) if rest else (own,)


def _cut_sets(sets: Sequence[MigrationSet], to: str | None) -> Sequence[MigrationSet]:
    """The sets up to the one that holds the version or name `to`; the first where none does."""
    if to is None:
        return sets
    holding = [at for at, each in enumerate(sets) if plan.find_place(each.migrations, to) is not None]
    return sets[: holding[0] + 1 if holding else 1]


def find_pending(
    conn: Connection,
    sets: Sequence[MigrationSet],
    schema: str,
    *,
    to: str | None = None,
    find_excluded: Callable[[MigrationSet], Collection[str]],
    **options: Any,
) -> list[tuple[Migration, history.MigrationProgress]]:
    """What `apply_sets` would apply, as `plan.find_pending` tells it for each set. Raises as that does."""
    chosen = _cut_sets(sets, to)
    return [
        pending
        for each in chosen
        for pending in plan.find_pending(
            conn,
            each.migrations,
            schema,
            to=to if each is chosen[-1] else None,
            excluded=find_excluded(each),
            history_name=each.history,
            names_elsewhere=each.names_elsewhere,
            **options,
        )
    ]


def apply_sets(
    conn: Connection,
    sets: Sequence[MigrationSet],
    *,
    to: str | None = None,
    find_excluded: Callable[[MigrationSet], Collection[str]],
    **options: Any,
) -> RunResult:
    """Apply one set after the other, up to and including `to`, as `apply_migrations` does. Raises as that does."""
    from stackctl.migrate.runner.run import RunInterrupted, RunResult, apply_migrations  # not for those that only look

    chosen = _cut_sets(sets, to)
    result = RunResult(())
    for each in chosen:
        try:
            more = apply_migrations(
                conn,
                each.migrations,
                history_name=each.history,
                names_elsewhere=each.names_elsewhere,
                to=to if each is chosen[-1] else None,
                find_excluded=partial(find_excluded, each),
                **options,
            )
        except RunInterrupted as interrupted:
            raise RunInterrupted(result.join(interrupted.result)) from interrupted
        except StackctlError as error:
            error.details["applied"] = [applied.name for applied in result.applied] + error.details.get("applied", [])
            raise
        result = result.join(more)
    return result


def _list_bundled_names() -> set[str]:
    return {name for name, _ in list_files(find_bundled("migrations"))}
