"""Repair the history by hand: accept an edit that was meant, or say what is applied and what is not. No file is run."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from stackctl.core.errors import ConfigError, StateError, UsageError
from stackctl.core.text_diff import diff_texts
from stackctl.migrate import files
from stackctl.migrate.git import Git
from stackctl.migrate.runner import failures, history, other_histories, other_runners, plan, runner_lock
from stackctl.migrate.runner.history_table import find_history_table
from stackctl.migrate.runner.session import Limits, Session
from stackctl.migrate.source_text import read_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stackctl.migrate.files import Migration
    from stackctl.migrate.runner.events import Event
    from stackctl.migrate.runner.history import MigrationProgress
    from stackctl.migrate.runner.session import Connection
    from stackctl.migrate.sets import MigrationSet

Action = Literal["accept", "applied", "pending"]
_MOST_VERSIONS = 200  # of one file that are looked at in git


@dataclass(frozen=True)
class _History:
    """A set, and how far each of its migrations has come."""

    chosen: MigrationSet
    begun: dict[str, MigrationProgress]

    def find_file(self, name: str) -> Migration | None:
        return next((migration for migration in self.chosen.migrations if migration.name == name), None)

    def list_rows(self, name: str) -> list[str]:
        """What makes it count as begun or applied: of a baseline, the files that it stands for as well."""
        migration = self.find_file(name)
        return [row for row in (name, *(migration.stands_for if migration else ())) if row in self.begun]


@dataclass(frozen=True)
class Repair:
    """One row of the history to be changed. `before`: what it says now, None without a row. `checksum`: what it is to
    say. `migration`: None where there is no such file; `lacks`: what the file makes and the database has not.
    """

    name: str
    action: Action
    chosen: MigrationSet
    migration: Migration | None
    before: MigrationProgress | None
    checksum: str = ""
    lacks: tuple[str, ...] = ()


def plan_repairs(
    conn: Connection,
    sets: Sequence[MigrationSet],
    schema: str,
    *,
    accept: Sequence[str] | None,
    applied: Sequence[str] = (),
    pending: Sequence[str] = (),
) -> tuple[Repair, ...]:
    """What is to be changed; what is so already is left out. Writes nothing.

    `accept`: names whose files were edited since, or every such file when it is empty (None: none). `applied` and
    `pending`: names to be recorded so.

    Raises UsageError (`unknown-migration`, `usage`), StateError (`applied-elsewhere`, `edited-too-far`), ConfigError
    (`empty-migration`), ServiceError (`permission-denied`).
    """
    histories = [_History(each, history.read_progress(conn, schema, each.history)) for each in sets]
    places = [[_find(histories, name) for name in names] for names in (accept or (), applied, pending)]
    asked = [(each.chosen.bundled, name) for part in places for each, name in part]
    if repeated := next((name for place, name in enumerate(asked) if name in asked[:place]), None):
        raise UsageError(f"{repeated[1]} is named twice", code="usage", hint="name each migration once")
    if accept is not None and not accept:
        places[0] = [(each, migration.name) for each in histories for migration in each.chosen.migrations]
    found = [_plan_accept(each, name) for each, name in places[0]]
    found += [_plan_applied(conn, schema, each, name) for each, name in places[1]]
    found += [_plan_pending(conn, schema, each, row) for each, name in places[2] for row in each.list_rows(name)]
    return tuple(repair for repair in found if repair is not None)


def execute_repairs(
    conn: Connection,
    repairs: Sequence[Repair],
    schema: str,
    plan_again: Callable[[], Sequence[Repair]],
    *,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    on_event: Callable[[Event], None] = lambda event: None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Change the history under the runner's lock; all rows commit together, another runner's records with them.

    `plan_again` tells under the lock what is to be done then; where that is no longer what was agreed to, nothing is.

    Raises StateError (`changed-meanwhile`, and those of the runner's lock), ServiceError (`permission-denied`,
    `read-only`, `connection-lost`).
    """
    with failures.translating(conn):
        session = Session.begin(conn, schema, limits)
        with runner_lock.hold_runner_lock(session, on_event, sleep):
            if tuple(plan_again()) != tuple(repairs):
                raise StateError(
                    "files or history have changed since they were shown",
                    code="changed-meanwhile",
                    hint="nothing was changed; look at it again",
                )
            with conn.transaction():
                for repair in repairs:
                    _execute(replace(session, history=repair.chosen.history), repair)


def find_difference(repair: Repair) -> str | None:
    """What was edited, as a diff, where git holds the file as it was applied; else None."""
    migration, before = repair.migration, repair.before
    if migration is None or before is None:
        return None
    git = Git(migration.path.parent, "")
    try:
        versions = git.read_blobs(git.list_versions(migration.path.name, _MOST_VERSIONS))
    except StateError:
        return None
    for content in versions:
        try:
            text = content.decode("utf-8-sig").replace("\r\n", "\n")
            older = files.parse_migration(text, migration.path, migration.name)
        except (UnicodeDecodeError, ConfigError):
            continue
        done = older.pieces if before.applied else older.pieces[: before.done]
        if files.compute_checksum(done) == before.checksum:
            return diff_texts(text, read_text(migration.path), migration.path.name)
    return None


def _find(histories: Sequence[_History], named: str) -> tuple[_History, str]:
    """Where the migration of a version, file or name belongs, and its whole name. Raises UsageError."""
    for each in histories:
        place = plan.find_place(each.chosen.migrations, named)
        if place is not None:
            return each, each.chosen.migrations[place].name
    for each in histories:
        if named in each.begun and named not in each.chosen.names_elsewhere:
            return each, named
    raise UsageError(
        f"there is no migration {named}",
        code="unknown-migration",
        hint="name a version, a file or a whole name that stackctl migrate status lists",
    )


def _plan_accept(each: _History, name: str) -> Repair | None:
    migration, before = each.find_file(name), each.begun.get(name)
    if migration is None:
        raise UsageError(
            f"there is no file {name}", code="usage", hint=f"to forget it: stackctl migrate repair --pending {name}"
        )
    if before is None:
        return None
    if not before.applied and before.done > len(migration.pieces):
        raise StateError(
            f"of {migration.path} {before.done} pieces are applied, and it has {len(migration.pieces)} now",
            code="edited-too-far",
            hint="restore what was applied, or say what it counts as with --applied or --pending",
        )
    pieces = migration.pieces if before.applied else migration.pieces[: before.done]
    checksum = files.compute_checksum(pieces)
    return None if checksum == before.checksum else Repair(name, "accept", each.chosen, migration, before, checksum)


def _plan_applied(conn: Connection, schema: str, each: _History, name: str) -> Repair | None:
    migration, before = each.find_file(name), each.begun.get(name)
    counted = history.count_baselines(each.chosen.migrations, each.begun).get(name)
    if counted is not None and counted.applied:
        return None
    if migration is None:
        raise UsageError(f"there is no file {name}", code="usage", hint="restore the file first")
    files.refuse_empty(migration)
    from stackctl.migrate import expected_tables  # reads SQL: sqlglot

    lacks = expected_tables.find_missing(Session(conn, schema), [migration]).names
    return Repair(name, "applied", each.chosen, migration, before, migration.checksum, lacks)


def _plan_pending(conn: Connection, schema: str, each: _History, name: str) -> Repair:
    before, migration = each.begun[name], each.find_file(name)
    for other in other_histories.read_other_histories(conn, [migration] if migration else [], schema):
        if name in other.finished:
            raise StateError(
                f'{other.tool} holds {name} as applied, too (table "{other.table}")',
                code="applied-elsewhere",
                hint="have it undone there first: migrate up would stop at that record",
                details={"table": other.table, "name": name},
            )
    return Repair(name, "pending", each.chosen, migration, before)


def _execute(session: Session, repair: Repair) -> None:
    match repair.action:
        case "accept":
            session.run_named("accept_edit", name=repair.name, checksum=repair.checksum)
        case "pending":
            if there := find_history_table(session.conn, session.history_table):
                there.require_writable(deleting=True)
            session.run_named("forget", name=repair.name)
        case "applied":
            assert repair.migration is not None
            history.create_history(session)
            history.record_adopted(session, [(repair.migration, None)])
            other_runners.record_if_missing(session, repair.migration)
