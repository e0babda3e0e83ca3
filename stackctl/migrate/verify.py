"""Whether files, history and database still belong together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stackctl.migrate.runner import concurrent_leftovers, history, plan
from stackctl.migrate.runner.session import Limits, Session

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stackctl.migrate.runner.session import Connection
    from stackctl.migrate.sets import MigrationSet

Kind = Literal["edited", "deleted", "ahead", "out-of-order", "half-applied", "invalid-index"]


@dataclass(frozen=True)
class VerifyFinding:
    """`name`: of the migration, or the index. `message`: what is found; `hint`: what to do."""

    kind: Kind
    name: str
    message: str
    hint: str


def verify(conn: Connection, sets: Iterable[MigrationSet], schema: str = "public") -> tuple[VerifyFinding, ...]:
    """What does not fit together. Writes nothing; a pending file is no finding.

    Raises ServiceError (`permission-denied`).
    """
    found = [finding for each in sets for finding in _verify_set(conn, each, schema)]
    for row in concurrent_leftovers.find_invalid_indexes_in_schema(Session(conn, schema, Limits())):
        doing = f", being built by process {row['builder']}" if row["builder"] else ""
        message = f"INVALID index on {row['table']}: it is kept up to date and never used{doing}"
        hint = f'DROP INDEX CONCURRENTLY "{row["schema"]}"."{row["index"]}", and build it again'
        found.append(VerifyFinding("invalid-index", row["index"], message, hint))
    return tuple(found)


def _verify_set(conn: Connection, chosen: MigrationSet, schema: str) -> list[VerifyFinding]:
    migrations, names_elsewhere = chosen.migrations, chosen.names_elsewhere
    compared = history.read_status(
        conn, migrations, schema, names_elsewhere=names_elsewhere, history_name=chosen.history
    )
    begun = history.count_baselines(chosen.migrations, history.read_progress(conn, schema, chosen.history))
    hint = "restore it as it was applied, or accept the edit: stackctl migrate repair"
    found = [
        VerifyFinding("edited", name, "the file was edited after it was applied", f"{hint} {name}")
        for name in compared.drifted
    ]
    last = migrations[-1].name if migrations else ""
    for name in compared.unknown:
        if name > last:
            message, hint = "applied, and newer than every file here", "this database is ahead: deploy the newer code"
            found.append(VerifyFinding("ahead", name, message, hint))
        else:
            hint = "restore the file from version control"
            found.append(VerifyFinding("deleted", name, "applied, and there is no such file", hint))
    for name, highest in plan.find_out_of_order(migrations, begun).items():
        found.append(
            VerifyFinding(
                "out-of-order",
                name,
                f"not applied, and older than {highest}, which is",
                "give the file a new version, or run stackctl migrate up --allow-out-of-order",
            )
        )
    by_name = {migration.name: migration for migration in migrations}
    for name, so_far in begun.items():
        migration = by_name.get(name)
        if so_far.applied or not so_far.begun or (migration is None and name in names_elsewhere):
            continue
        message = f"begun and not finished: {so_far.done} pieces are applied"
        if so_far.repeats:
            message += f", after {so_far.repeats} passes"
        hint = "run stackctl migrate up: it goes on from there"
        if migration is None:
            message, hint = f"{message}, and there is no such file", "restore the file from version control"
        elif history.is_edited_halfway(migration, so_far):
            message, hint = f"{message}, and what is applied was edited since", "restore that part of the file"
        found.append(VerifyFinding("half-applied", name, message, hint))
    return found
