"""Files up to a version become one: a dump of what they make, which stands for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackctl.core.errors import ConfigError, StateError, UsageError
from stackctl.migrate import files, up_halves
from stackctl.migrate.compatibility.scratch_schemas import ScratchSchemas, open_scratch_schemas
from stackctl.migrate.files import parse_migration
from stackctl.migrate.runner import plan
from stackctl.migrate.schema.catalog import read_catalog
from stackctl.migrate.schema.dump import dump_schema
from stackctl.migrate.schema.rows import count_rows
from stackctl.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from stackctl.migrate.files import Migration

_SQL = load_statements(__file__)
_ROWS = 10_000  # of all tables; more are data, and no part of a schema


@dataclass(frozen=True)
class Squash:
    """`path` and `text`: the file to be written. `stands_for`: names, in order. `removed`: the files that go.

    `rows`: how many it carries over, by table.
    """

    path: Path
    text: str
    stands_for: tuple[str, ...]
    removed: tuple[Path, ...]
    rows: dict[str, int]


def plan_squash(
    directory: Path,
    migrations: Sequence[Migration],
    to: str | None,
    schema: str,
    *,
    trust: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> Squash:
    """What one file for those up to `to` holds; it is proven to make the same. Nothing is written.

    Raises UsageError (`unknown-migration`, `nothing-to-squash`), StateError (`change-capture`, `squash-differs` where a
    dump does not hold all that they make), ConfigError (`empty-migration`, `migrations-do-not-apply`), and as
    `embedded.attach` does.
    """
    chosen = plan.select_up_to(migrations, to)
    _refuse(chosen)
    stands_for = tuple(name for migration in chosen for name in (*migration.stands_for, migration.name))
    name = f"{chosen[-1].version}_baseline"
    path = directory / f"{name}.sql"
    tell("starting a scratch PostgreSQL")
    with open_scratch_schemas(schema, trust=trust) as scratch:
        tell(f"applying the migrations ({len(chosen)})")
        scratch.apply("before", chosen)
        _refuse_shared(scratch)
        with scratch.connect("before") as conn:
            rows = count_rows(conn, schema, read_catalog(conn, schema))
            if (written := sum(rows.values())) > _ROWS:
                raise StateError(
                    f"the files write {written:,} rows, more than the {_ROWS:,} that a baseline carries over",
                    code="squash-differs",
                    hint="bring such data in by another way than migrations, or stop before them with --to",
                )
            body = dump_schema(conn, schema, rows=True)
        text = _write(stands_for, body)
        tell("applying the one file, and comparing")
        scratch.apply("after", [parse_migration(text, path, name)])
        _prove(scratch, schema)
    return Squash(path, text, stands_for, tuple(gone for one in chosen for gone in _list_files(one)), rows)


def execute_squash(squash: Squash) -> None:
    """Write the file, then remove those it stands for. Killed between, the folder has a version twice, and is refused.

    Raises ConfigError (`migrations-dir-unwritable`).
    """
    try:
        with squash.path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(squash.text)
        for path in squash.removed:
            path.unlink()
            if path.name == "migration.sql" and not any(path.parent.iterdir()):
                path.parent.rmdir()
    except OSError as error:
        raise ConfigError(
            f"{error.filename} can't be written or removed: {error.strerror}", code="migrations-dir-unwritable"
        ) from error


def _refuse(chosen: Sequence[Migration]) -> None:
    if len(chosen) < 2:
        raise UsageError(
            "there are no two migrations to make one of",
            code="nothing-to-squash",
            hint="name a later version with --to",
        )
    for place, migration in enumerate(chosen):
        files.refuse_empty(migration)
        if migration.captures_changes:
            before = f", that is with --to {chosen[place - 1].version}" if place > 1 else ""
            raise StateError(
                f"{migration.path} is left out where the application captures changes: no one file can stand for it",
                code="change-capture",
                hint=f"stop before it{before}",
            )


def _write(stands_for: Sequence[str], body: str) -> str:
    head = ["-- What these files made, in their place. A database that has the last of them needs nothing of it."]
    head += [f"{files.BASELINE} {name}" for name in stands_for]
    return "\n".join(head) + f"\n\n{body}"


def _list_files(migration: Migration) -> list[Path]:
    found = [migration.path]
    if migration.path.stem.endswith(up_halves.UP):
        down = migration.path.with_name(migration.path.name.replace(up_halves.UP, up_halves.DOWN))
        found += [down] if down.exists() else []
    return found


def _refuse_shared(scratch: ScratchSchemas) -> None:
    if shared := scratch.list_shared("before"):
        raise StateError(
            f"the files make what belongs to the whole server: {plan.format_names(shared)}",
            code="squash-differs",
            hint="a dump of the database does not hold that; stop before that file with --to, or make it elsewhere",
        )


def _prove(scratch: ScratchSchemas, schema: str) -> None:
    """Raises StateError (`squash-differs`) unless the one file makes what all of them make."""
    before, after = scratch.read("before"), scratch.read("after")
    lost = [f"{kind} {name}" for kind, name in before.unread if (kind, name) not in after.unread]
    lost += [f"schema {name}" for name in before.schemas - after.schemas]
    with scratch.connect("before") as one, scratch.connect("after") as other:
        kept = {what for (what,) in other.execute(_SQL["beside_the_dump"])}
        lost += [what for (what,) in one.execute(_SQL["beside_the_dump"]) if what not in kept]
        for name in sorted({schema, "stackctl", *before.schemas} - (before.schemas - after.schemas)):
            if not lost and dump_schema(one, name, rows=name != "stackctl") != dump_schema(
                other, name, rows=name != "stackctl"
            ):
                lost.append(f"part of schema {name}")
    if lost:
        raise StateError(
            f"a dump does not hold all that the files make; it lacks {plan.format_names(lost)}",
            code="squash-differs",
            hint="stop before that file with --to: nothing was changed",
            details={"lacks": lost},
        )
