"""Do the new migrations leave the running version of the application alone? Tried out, on databases of our own.

base files (git) → a database with the base → its schema after each of the new files, judged against the base's → every
statement measured on made-up rows → a command run against the first and the last
"""

from __future__ import annotations

import re
import secrets
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackctl.core.errors import AnswerNo, ServiceError
from stackctl.migrate.compatibility import baseline, contract, sample_rows, scratch_server
from stackctl.migrate.compatibility.finding_places import drop_allowed, find_statement
from stackctl.migrate.compatibility.report import CheckReport, CommandComparison, CompatibilityFinding
from stackctl.migrate.compatibility.shell_command import run_command
from stackctl.migrate.compatibility.statement_observer import StatementObserver
from stackctl.migrate.runner.run import apply_migrations
from stackctl.migrate.schema import catalog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from stackctl.migrate.compatibility.contract_rules import Severity
    from stackctl.migrate.compatibility.sample_rows import SkippedTable
    from stackctl.migrate.compatibility.scratch_server import Connection, ScratchDatabases
    from stackctl.migrate.compatibility.shell_command import CommandOutcome
    from stackctl.migrate.compatibility.statement_observer import MeasuredStatement
    from stackctl.migrate.files import Migration
    from stackctl.postgres.embedded import EmbeddedServer

_BASE, _NEW = "base", "new"
_UNKNOWN_ROLE = re.compile(r'role "(.+)" does not exist')
_UNKNOWN_EXTENSION = re.compile(r'extension "(.+)" is not available')


@dataclass(frozen=True)
class CheckOptions:
    """`schema`: where unqualified names live. `rows`: how many each table gets before statements are measured.
    `command`: what to run against old and new. `capture`: whether migrations that capture changes belong to it.
    """

    schema: str = "public"
    rows: int = 1000
    command: str | None = None
    capture: bool = True


def check_compatibility(
    directory: Path,
    present: Sequence[Migration],
    ref: str,
    options: CheckOptions,
    *,
    tell: Callable[[str], None] = lambda text: None,
    server: EmbeddedServer | None = None,
) -> CheckReport:
    """Try the migrations that `directory` (read as `present`) has beyond `ref`; `tell` hears what is being done.

    Nothing but `server`, or a temporary one where that is None, is touched. Raises what `baseline.read_baseline`
    and `run_scratch_server` raise, ServiceError `extension-missing`, and AnswerNo `base-broken` when the base's own
    files don't apply.
    """
    base = baseline.read_baseline(directory, ref)
    changes = baseline.compare_with_folder(base, present)
    findings = list(_to_folder_findings(changes, ref))
    if base.not_on_branch:
        tell(f"{len(base.not_on_branch)} migrations of {ref} are not on this branch yet; they count as applied")
    old = _select(base.migrations, options)
    new = _select(changes.added, options)
    if not new and options.command is None:
        return CheckReport(ref, (), tuple(findings), (), None, (), ())
    with ExitStack() as stack:
        if server is None:
            tell("starting a scratch PostgreSQL")
            server = stack.enter_context(scratch_server.run_scratch_server())
        databases = stack.enter_context(scratch_server.ScratchDatabases(server, f"check_{secrets.token_hex(4)}_"))
        checker = _Checker(databases, old, new, options, tell)
        return checker.run(ref, findings)


def _select(migrations: Iterable[Migration], options: CheckOptions) -> tuple[Migration, ...]:
    return tuple(m for m in migrations if options.capture or not m.captures_changes)


def _to_folder_findings(changes: baseline.FolderChanges, ref: str) -> Iterable[CompatibilityFinding]:
    for migrations, rule, message, suggestion in (
        (
            changes.edited, "file-edited",
            f"differs from {ref}: a database that has applied it keeps the old effect, a new one gets another",
            "restore the file, and write what is to change into a new migration",
        ),
        (
            changes.deleted, "file-deleted",
            f"{ref} has this file and the folder does not: databases that applied it no longer match the files",
            "restore the file; take its effect back in a new migration",
        ),
        (
            changes.out_of_order, "file-out-of-order",
            f"sorts below the last migration of {ref}: databases in use run it after that one, new ones before",
            "give it a timestamp of now: stackctl migrate new writes one",
        ),
    ):  # fmt: skip
        for migration in migrations:
            yield CompatibilityFinding(migration.path, 1, 1, rule, "breaking", message, suggestion)


class _Checker:
    """The databases of one check, and what was seen on them."""

    def __init__(
        self,
        databases: ScratchDatabases,
        old: Sequence[Migration],
        new: Sequence[Migration],
        options: CheckOptions,
        tell: Callable[[str], None],
    ) -> None:
        self._databases = databases
        self._old = old
        self._new = new
        self._options = options
        self._tell = tell
        self._roles: list[str] = []
        self._states = {0: _BASE}  # databases by how many of the new files are applied

    def run(self, ref: str, findings: list[CompatibilityFinding]) -> CheckReport:
        tried, catalogs, failure = self._apply_one_by_one()
        findings += self._compare_catalogs(tried, catalogs)
        if failure is not None:
            findings.append(failure)
        measured, skipped, refused = self._measure(tried)
        findings += refused
        findings += [finding for one in measured for finding in _find_rewrites(one)]
        run = self._compare_command(tried) if self._options.command is not None and failure is None else None
        if run is not None and run.broken_by is not None:
            findings.append(_to_broken_command(run, run.broken_by))
        return CheckReport(
            ref,
            tuple(self._new),
            tuple(sorted(drop_allowed(findings, self._new), key=_sort_key)),
            measured,
            run,
            skipped,
            tuple(self._roles),
        )

    def _apply_one_by_one(self) -> tuple[list[Migration], list[catalog.Catalog], CompatibilityFinding | None]:
        """The new files that apply, and the catalog after each, the base's first; why the next one does not."""
        self._tell(f"applying the migrations of the base ({len(self._old)})")
        self._databases.create(_BASE)
        try:
            with self._databases.connect(_BASE) as conn:
                self._apply(conn, self._old)
                catalogs = [catalog.read_catalog(conn, self._options.schema)]
        except AnswerNo as error:
            raise AnswerNo(
                f"the base's own migrations do not apply: {error.message}", code="base-broken", hint=error.hint,
                details=error.details,
            ) from error  # fmt: skip
        self._databases.create(_NEW, template=_BASE)
        tried: list[Migration] = []
        with self._databases.connect(_NEW) as conn:
            for migration in self._new:
                self._tell(f"applying {migration.name}")
                try:
                    self._apply(conn, [*self._old, *tried, migration])
                except AnswerNo as error:
                    what = "it does not apply to an empty database"
                    return tried, catalogs, _to_failure(error, migration, "does-not-apply", "breaking", what, "mend it")
                catalogs.append(catalog.read_catalog(conn, self._options.schema))
                tried.append(migration)
        self._states[len(tried)] = _NEW
        return tried, catalogs, None

    def _create_state(self, count: int) -> str:
        """A database with the base and the first `count` new files applied, to be cloned and left as it is."""
        if count not in self._states:
            self._states[count] = f"after_{count}"
            self._databases.create(self._states[count], template=_BASE)
            with self._databases.connect(self._states[count]) as conn:
                self._apply(conn, [*self._old, *self._new[:count]])
        return self._states[count]

    def _apply(
        self, conn: Connection, migrations: Sequence[Migration], observer: StatementObserver | None = None
    ) -> None:
        """`apply_migrations`, with a stand-in for each role that the files name and this server lacks."""
        statement_context = observer.measure if observer is not None else lambda migration, statement: nullcontext()
        while True:
            try:
                apply_migrations(
                    conn,
                    migrations,
                    schema=self._options.schema,
                    out_of_order=True,
                    sleep=lambda seconds: None,
                    statement_context=statement_context,
                )
                return
            except AnswerNo as error:
                role = _UNKNOWN_ROLE.search(error.message)
                extension = _UNKNOWN_EXTENSION.search(error.message)
                if extension is not None:
                    raise ServiceError(
                        f"the scratch PostgreSQL lacks the extension {extension[1]} ({error.message})",
                        code="extension-missing",
                        hint="it brings plpgsql and vector only; a folder that needs others can't be checked here",
                    ) from error
                if role is None or role[1] in self._roles:
                    raise
                self._databases.create_role(role[1])
                self._roles.append(role[1])

    def _compare_catalogs(
        self, tried: Sequence[Migration], catalogs: Sequence[catalog.Catalog]
    ) -> Iterable[CompatibilityFinding]:
        """Every state that a database passes through, against the base; a breach counts for the file that begins it."""
        seen: set[tuple[str, str]] = set()
        for migration, now in zip(tried, catalogs[1:], strict=True):
            for breach in contract.find_breaches(catalogs[0], now):
                key = (breach.rule, breach.what)
                if key not in seen:
                    seen.add(key)
                    line, column = find_statement(migration, breach.names)
                    yield CompatibilityFinding(
                        migration.path, line, column, breach.rule, breach.severity, breach.message, breach.suggestion
                    )

    def _measure(
        self, tried: Sequence[Migration]
    ) -> tuple[tuple[MeasuredStatement, ...], tuple[SkippedTable, ...], list[CompatibilityFinding]]:
        """Run the files once more, on rows; one that fails on them, on empty tables."""
        measured: list[MeasuredStatement] = []
        refused: list[CompatibilityFinding] = []
        database, skipped = self._create_with_rows(0)
        for place, migration in enumerate(tried):
            self._tell(f"measuring {migration.name}")
            plan = [*self._old, *tried[: place + 1]]
            try:
                measured += self._observe(database, plan)
            except AnswerNo as error:
                what = "it applies to empty tables (on which it is measured), and fails on made-up rows"
                safe = "backfill first, or make sure that no row in use is like that"
                refused.append(_to_failure(error, migration, "fails-on-rows", "warning", what, safe))
                self._databases.create(f"empty_{place}", template=self._create_state(place))
                measured += self._observe(f"empty_{place}", plan)
                if place + 1 < len(tried):
                    database, skipped = self._create_with_rows(place + 1)
        return tuple(measured), skipped, refused

    def _create_with_rows(self, count: int) -> tuple[str, tuple[SkippedTable, ...]]:
        """A database with that many of the new files applied and then filled, and the tables left without rows."""
        database = f"rows_{count}"
        self._databases.create(database, template=self._create_state(count))
        rows = self._options.rows
        if not rows:
            return database, ()
        self._tell(f"making up {rows:,} rows for each table")
        with self._databases.connect(database) as conn:
            return database, sample_rows.insert_sample_rows(conn, self._options.schema, rows)

    def _observe(self, database: str, plan: Sequence[Migration]) -> tuple[MeasuredStatement, ...]:
        with self._databases.connect(database) as conn:
            observer = StatementObserver(conn, self._options.schema)
            self._apply(conn, plan, observer)
        return observer.measured

    def _compare_command(self, tried: Sequence[Migration]) -> CommandComparison:
        command = self._options.command
        assert command is not None

        def outcome(state: int) -> CommandOutcome:
            self._tell(f"running the command {f'after {tried[state - 1].name}' if state else 'on the base'}")
            # On a clone: whatever the command writes must not reach its next run.
            return run_command(command, self._databases.create(f"run_{state}", template=self._create_state(state)))

        before = outcome(0)
        after = outcome(len(tried)) if tried else before
        broken_by = None
        if before.passed and not after.passed:
            passing, failing = 0, len(tried)
            while failing - passing > 1:
                middle = (passing + failing) // 2
                if outcome(middle).passed:
                    passing = middle
                else:
                    failing = middle
            broken_by = tried[failing - 1]
        return CommandComparison(command, before, after, broken_by)


def _to_failure(
    error: AnswerNo, migration: Migration, rule: str, severity: Severity, what: str, safe: str
) -> CompatibilityFinding:
    line, column = error.details.get("line", 1), error.details.get("column", 1)
    reason = error.message.removeprefix(f"{migration.path}:{line}:{column}: ")
    return CompatibilityFinding(migration.path, line, column, rule, severity, f"{what}: {reason}", safe)


def _find_rewrites(measured: MeasuredStatement) -> Iterable[CompatibilityFinding]:
    # Whatever writes a table anew holds that lock: an ALTER TABLE, CLUSTER, VACUUM FULL.
    for table in measured.rewrites:
        yield CompatibilityFinding(
            measured.migration.path, measured.statement.line, measured.statement.column, "table-rewrite", "warning",
            f"{table} is written anew under AccessExclusiveLock: nobody reads or writes it meanwhile",
            "add a new column without a rewriting default, backfill it in batches, and switch over later",
        )  # fmt: skip


def _to_broken_command(run: CommandComparison, migration: Migration) -> CompatibilityFinding:
    return CompatibilityFinding(
        migration.path, 1, 1, "command-fails", "breaking",
        f"`{run.command}` passes before this migration and fails after it (exit code {run.after.exit_code})",
        "see the end of its output; the running version needs what this migration takes away",
    )  # fmt: skip


def _sort_key(finding: CompatibilityFinding) -> tuple[str, int, int, str, str]:
    return str(finding.file), finding.line, finding.column, finding.severity, finding.rule
