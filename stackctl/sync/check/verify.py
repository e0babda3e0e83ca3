"""`verify`: copies compared with their source, database after database; and differences repaired."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from stackctl.core.errors import StackctlError, StateError
from stackctl.sync.engine.comparison import CopyComparison, VerifyResult
from stackctl.sync.engine.source_errors import OperatedDatabaseLost
from stackctl.sync.engine.source_rewound import is_copy_ahead, repair_rewound_copy, to_ahead_error
from stackctl.sync.engine.workers import abort_when_stuck
from stackctl.sync.scope import find_unknown_tenancies, select_databases
from stackctl.sync.targets.mapping_changes import refuse_mixed_copy
from stackctl.sync.targets.protocol import NEVER_SYNCED, check_owner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from uuid import UUID

    from stackctl.config.settings import ExternalDatabase
    from stackctl.mapping.compile import Compiled
    from stackctl.sync.engine.source import Source
    from stackctl.sync.pipeline import Pipeline
    from stackctl.sync.scope import Scope
    from stackctl.sync.stop import Stop
    from stackctl.sync.targets.protocol import Target, TargetState

STOP_GRACE = 2.0  # seconds after which a stop breaks off the comparison in hand


def verify(
    pipeline: Pipeline,
    scope: Scope,
    stop: Stop,
    *,
    repair: bool = False,
    on_rows: Callable[[int, str], None] = lambda rows, mapping: None,
    on_unfed: Callable[[ExternalDatabase, str], None] = lambda database, mapping: None,
) -> list[VerifyResult]:
    """Compare these copies with their source; `repair` corrects them, and nothing but what differs is written.

    A database's failure is recorded in its checks, and the others go on. `on_rows` (rows, mapping) hears of rows that
    were compared, `on_unfed` of copies that no mapping feeds. Raises UsageError for a name that does not exist,
    OperatedDatabaseLost.
    """
    checks: list[VerifyResult] = []
    with pipeline.open_session() as conn:
        pipeline.check_ready(conn)
        found = select_databases(pipeline, scope)
        unknown = find_unknown_tenancies(conn, found, scope)
    source = pipeline.open_source()
    try:
        for database in found:
            compiled = pipeline.compile_mappings(database, scope.mappings)
            mine = [VerifyResult(database.tenancy, database.id, one.mapping.name) for one in compiled]
            checks += mine
            if database.tenancy in unknown:
                _fail(mine, unknown[database.tenancy])
            elif stop.requested:
                _interrupt(mine)
            else:
                _verify_database(pipeline, source, database, compiled, mine, repair=repair, stop=stop, on_rows=on_rows,
                                 on_unfed=on_unfed)  # fmt: skip
    finally:
        source.close()
    return checks


def _fail(checks: Iterable[VerifyResult], error: StackctlError) -> None:
    for check in checks:
        check.error = error


def _interrupt(checks: Iterable[VerifyResult]) -> None:
    for check in checks:
        check.interrupted = True


def _verify_database(
    pipeline: Pipeline,
    source: Source,
    database: ExternalDatabase,
    compiled: Sequence[Compiled],
    checks: Sequence[VerifyResult],
    *,
    repair: bool,
    stop: Stop,
    on_rows: Callable[[int, str], None],
    on_unfed: Callable[[ExternalDatabase, str], None],
) -> None:
    left = list(checks)
    try:
        resolved = pipeline.settings.resolve_database(database)
        if resolved.path is not None and not resolved.path.exists():
            raise _never_loaded_error(f"the file {resolved.path} does not exist")
        target = pipeline.open_target(database)
        try:
            with abort_when_stuck(source, target, stop, grace=STOP_GRACE):
                state = target.read_state(compiled)
                check_owner(state.owner, database.tenancy, f"the external database {database.id}")
                for name in pipeline.find_unfed(database, state.cursors):
                    on_unfed(database, name)
                for one in compiled:
                    if stop.requested:
                        break
                    _verify_mapping(source, target, database, one, left.pop(0), state=state, repair=repair, stop=stop,
                                    on_rows=on_rows)  # fmt: skip
        finally:
            target.close()
    except OperatedDatabaseLost:
        raise
    except StackctlError as error:
        _fail(left, error)
    else:
        _interrupt(left)


_DATABASE_IS_GONE = ("connection-lost", "unreachable", "too-many-connections", "out-of-resources")


def _verify_mapping(
    source: Source,
    target: Target,
    database: ExternalDatabase,
    compiled: Compiled,
    check: VerifyResult,
    *,
    state: TargetState,
    repair: bool,
    stop: Stop,
    on_rows: Callable[[int, str], None],
) -> None:
    """Fill `check`. A failure of the mapping is recorded there, one of the database is raised as well."""
    started = time.monotonic()
    try:
        cursor = state.cursors.get(check.mapping)

        def accept_cursor(cursor: int) -> int:
            _refuse_cursor(source, compiled, cursor, check.tenancy)
            return cursor

        if check.mapping in state.foreign:
            raise state.foreign[check.mapping]
        at = cursor.sequence_id if cursor else NEVER_SYNCED
        if repair and is_copy_ahead(source, compiled, at, check.tenancy):
            repair_rewound_copy(source, target, compiled, check, stop, on_rows)
            return
        accept_cursor(at)
        refuse_mixed_copy(compiled, state.copies.get(check.mapping), database)
        comparison = CopyComparison(source, target, compiled, check, accept_cursor=accept_cursor, repair=repair,
                                    stop=stop)  # fmt: skip
        comparison.run(on_rows)
    except StackctlError as error:
        if stop.requested:
            check.interrupted = True  # it was broken off
            return
        check.error = error
        if isinstance(error, OperatedDatabaseLost) or error.code in _DATABASE_IS_GONE:
            raise
    finally:
        check.duration_ms = round((time.monotonic() - started) * 1000)


def _refuse_cursor(source: Source, compiled: Compiled, cursor: int, tenancy: UUID) -> None:
    if cursor == NEVER_SYNCED:
        raise _never_loaded_error(f"the copy of {compiled.mapping.name} was never loaded")
    if is_copy_ahead(source, compiled, cursor, tenancy):
        raise to_ahead_error(compiled.mapping.name, cursor, tenancy)


def _never_loaded_error(message: str) -> StateError:
    return StateError(
        message, code="never-loaded", hint="load it: `stackctl sync --all`, or leave it to `stackctl run`"
    )
