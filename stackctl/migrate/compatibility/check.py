"""Do the new migrations leave the running version of the application alone? Tried out, on databases of our own.

base files (git) → a database with the base → its schema after each of the new files, judged against the base's → every
statement measured on made-up rows → a command run against the first and the last
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackctl.core.errors import AnswerNo, UsageError
from stackctl.core.sentences import format_count
from stackctl.migrate.compatibility import baseline, contract, sample_rows
from stackctl.migrate.compatibility.as_written import FileWords, name_rewrite
from stackctl.migrate.compatibility.finding_places import drop_allowed, find_statement
from stackctl.migrate.compatibility.report import CheckReport, CommandComparison, CompatibilityFinding
from stackctl.migrate.compatibility.scratch_runs import NEEDS_SUPERUSER, TRUST, ScratchRunner
from stackctl.migrate.compatibility.scratch_server import ScratchDatabases, make_scratch_directory, read_server_objects
from stackctl.migrate.compatibility.shell_command import run_command
from stackctl.migrate.compatibility.statement_observer import StatementObserver
from stackctl.migrate.schema import catalog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from stackctl.migrate.compatibility.contract_rules import Severity
    from stackctl.migrate.compatibility.sample_rows import SkippedTable
    from stackctl.migrate.compatibility.scratch_server import ServerObject
    from stackctl.migrate.compatibility.shell_command import CommandOutcome
    from stackctl.migrate.compatibility.statement_observer import MeasuredStatement
    from stackctl.migrate.files import Migration
    from stackctl.postgres.libpq import Connection

_BASE, _NEW = "base", "new"
# What DROP says of a role or a tablespace that another database uses.
_IN_USE = ("2BP01", "55000", "55006")


@dataclass(frozen=True)
class CheckOptions:
    """`schema`: where unqualified names live. `rows`: how many each table gets before statements are measured.
    `command`: what to run against old and new, with all of the environment or, of `run_env`, what it names. `capture`:
    whether migrations that capture changes belong to it. `trust`: whether the files may run as a superuser.
    """

    schema: str = "public"
    rows: int = 1000
    command: str | None = None
    run_env: tuple[str, ...] = ()
    capture: bool = True
    trust: bool = False


class _NeedsServersApartError(Exception):
    """Files change what databases of one server share."""


def check_compatibility(
    directory: Path,
    present: Sequence[Migration],
    ref: str,
    options: CheckOptions,
    *,
    tell: Callable[[str], None] = lambda text: None,
) -> CheckReport:
    """Try the migrations that `directory` (read as `present`) has beyond `ref`; `tell` hears what is being done.

    Nothing but temporary servers is touched. Raises what `baseline.read_baseline` and `embedded.attach` raise,
    ServiceError `extension-missing`, and AnswerNo `base-broken` when the base's own files don't apply.
    """
    base = baseline.read_baseline(directory, ref)
    changes = baseline.compare_with_folder(base, present)
    findings = list(baseline.find_folder_findings(changes, ref))
    if base.not_on_branch:
        what = format_count(len(base.not_on_branch), "migration", "migrations")
        tell(f"not on this branch yet, and counted as applied: {what} of {ref}")
    old = _select(base.migrations, options)
    new = _select(changes.added, options)
    if not new and options.command is None:
        return CheckReport(ref, (), tuple(findings), (), None, (), ())
    tell("starting a scratch PostgreSQL")
    with make_scratch_directory() as scratch:
        try:
            databases = ScratchDatabases(scratch, trust=options.trust, apart=False)
            return _Checker(databases, old, new, options, tell).run(ref, findings)
        except _NeedsServersApartError:
            tell("the files change roles or other things that databases share: each gets a server of its own")
            databases = ScratchDatabases(scratch, trust=options.trust, apart=True)
            return _Checker(databases, old, new, options, tell).run(ref, findings)


def _select(migrations: Iterable[Migration], options: CheckOptions) -> tuple[Migration, ...]:
    written = (m for m in migrations if m.pieces)  # one that was just made is not
    return tuple(m for m in written if options.capture or not m.captures_changes)


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
        self._runner = ScratchRunner(databases, options.schema, trust=options.trust)
        self._options = options
        self._tell = tell
        self._states = {0: _BASE}  # databases by how many of the new files are applied

    def run(self, ref: str, found: Sequence[CompatibilityFinding]) -> CheckReport:
        findings = list(found)
        tried, catalogs, failure = self._apply_one_by_one()
        findings += self._compare_catalogs(tried, catalogs)
        if failure is not None:
            findings.append(failure)
        measured, skipped, refused = self._measure(tried)
        findings += refused
        findings += [finding for one in measured for finding in _find_rewrites(one, self._options.schema)]
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
            tuple(self._runner.roles),
        )

    def _apply_one_by_one(self) -> tuple[list[Migration], list[catalog.Catalog], CompatibilityFinding | None]:
        """The new files that apply, and the catalog after each, the base's first; why the next one does not."""
        self._tell(f"applying the migrations of the base ({len(self._old)})")
        self._databases.create(_BASE)
        try:
            with self._databases.connect(_BASE) as conn:
                before = read_server_objects(conn)
                self._runner.apply(_BASE, conn, self._old)
                catalogs = [catalog.read_catalog(conn, self._options.schema)]
                # A clone has the base's roles at hand, but not what the server knows about the base's database.
                self._require_unshared(conn, {one for one in before if one.name == conn.info.dbname}, conn.info.dbname)
        except AnswerNo as error:
            raise AnswerNo(
                f"the base's own migrations do not apply: {error.message}", code="base-broken", hint=error.hint,
                details=error.details,
            ) from error  # fmt: skip
        self._databases.create(_NEW, template=_BASE)
        tried: list[Migration] = []
        failure = None
        with self._databases.connect(_NEW) as conn:
            before = read_server_objects(conn)
            for migration in self._new:
                self._tell(f"applying {migration.name}")
                try:
                    self._runner.apply(_NEW, conn, [*self._old, *tried, migration])
                except AnswerNo as error:
                    if error.details.get("sqlstate") in _IN_USE and not self._databases.apart:
                        raise _NeedsServersApartError from error
                    failure = _to_refusal(error, migration)
                    break
                catalogs.append(catalog.read_catalog(conn, self._options.schema))
                tried.append(migration)
            self._require_unshared(conn, before)
        if failure is None:
            self._states[len(tried)] = _NEW
        return tried, catalogs, failure

    def _require_unshared(self, conn: Connection, before: set[ServerObject], name: str | None = None) -> None:
        """Refuse to go on with one server when there are changes (to what is called `name`) that belong to it."""
        changed = before ^ {one for one in read_server_objects(conn) if name in (None, one.name)}
        if not self._databases.apart and any(one.name not in self._runner.made_up for one in changed):
            raise _NeedsServersApartError

    def _create_state(self, count: int) -> str:
        """A database with the base and the first `count` new files applied, to be cloned and left as it is."""
        if count not in self._states:
            self._states[count] = f"after_{count}"
            self._databases.create(self._states[count], template=_BASE)
            with self._databases.connect(self._states[count]) as conn:
                self._runner.apply(self._states[count], conn, [*self._old, *self._new[:count]])
        return self._states[count]

    def _compare_catalogs(
        self, tried: Sequence[Migration], catalogs: Sequence[catalog.Catalog]
    ) -> Iterable[CompatibilityFinding]:
        """Every state that a database passes through, against the base; a breach counts for the file that begins it."""
        seen: set[tuple[str, str]] = set()
        for migration, now in zip(tried, catalogs[1:], strict=True):
            words = FileWords(migration, self._options.schema)
            for found in contract.find_breaches(catalogs[0], now):
                key = (found.rule, found.what)
                if key in seen:
                    continue
                seen.add(key)
                for breach in words.reword(found, now):
                    line, column = find_statement(migration, breach.names, words.list_statements(breach.rule))
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
            self._runner.apply(database, conn, plan, observer)
        return observer.measured

    def _compare_command(self, tried: Sequence[Migration]) -> CommandComparison:
        command = self._options.command
        assert command is not None

        def outcome(state: int) -> CommandOutcome:
            self._tell(f"running the command {f'after {tried[state - 1].name}' if state else 'on the base'}")
            # On a clone: whatever the command writes must not reach its next run.
            database = f"run_{state}"
            self._databases.create(database, template=self._create_state(state))
            return run_command(command, self._databases.url(database), self._options.run_env)

        before = outcome(0)
        if before.obstacle is not None:
            raise UsageError(
                f"--run: {before.obstacle}: {command}",
                code="command-not-run",
                hint="it runs in a shell, in the folder that stackctl was called in",
                details={"exit_code": before.exit_code, "output": before.tail},
            )
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


def _to_refusal(error: AnswerNo, migration: Migration) -> CompatibilityFinding:
    if error.code == NEEDS_SUPERUSER:
        what = "it is refused to a role that is no superuser"
        return _to_failure(error, migration, NEEDS_SUPERUSER, "breaking", what, TRUST)
    return _to_failure(
        error, migration, "does-not-apply", "breaking", "it does not apply to an empty database", "fix it"
    )


def _to_failure(
    error: AnswerNo, migration: Migration, rule: str, severity: Severity, what: str, safe: str
) -> CompatibilityFinding:
    line, column = error.details.get("line", 1), error.details.get("column", 1)
    reason = error.message.removeprefix(f"{migration.path}:{line}:{column}: ")
    return CompatibilityFinding(migration.path, line, column, rule, severity, f"{what}: {reason}", safe)


def _find_rewrites(measured: MeasuredStatement, schema: str) -> Iterable[CompatibilityFinding]:
    # Whatever writes a table anew holds that lock: an ALTER TABLE, CLUSTER, VACUUM FULL.
    for table in measured.rewrites:
        yield CompatibilityFinding(
            measured.migration.path, measured.statement.line, measured.statement.column,
            name_rewrite(measured.statement.sql, schema), "warning",
            f"{table} is rewritten under AccessExclusiveLock: nobody reads or writes it meanwhile",
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
