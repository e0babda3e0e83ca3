"""Both sides of a copy compared row for row, without moving the rows; and differences repaired.

Each side sums hashes of its rows in buckets of keys; of the buckets that differ, it gives the keys with the row's
hash. That yields candidates and nothing more, because the two sides were read at different times while changes flow.
Each candidate is looked at once more under the lock of the copy's cursor, when nobody writes the copy, and what is
still on its way there is no difference.
"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from psycopg.types.json import Jsonb

from stackctl.core.errors import StackctlError, StateError
from stackctl.mapping.checksums import compile_checksums
from stackctl.sync.engine import rejected_rows
from stackctl.sync.engine.repair import KEYS_AT_ONCE, can_be_in_source, repair_rows, split_differing_buckets
from stackctl.sync.engine.source_errors import OperatedDatabaseLost
from stackctl.sync.engine.source_rewound import refuse_rewound_source
from stackctl.sync.engine.workers import abort_when_stuck
from stackctl.sync.scope import find_unknown_tenancies, select_databases
from stackctl.sync.targets.protocol import NEVER_SYNCED, check_owner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from uuid import UUID

    from stackctl.config.settings import ExternalDatabase
    from stackctl.mapping.checksums import Key, Sums
    from stackctl.mapping.compile import Compiled
    from stackctl.sync.engine.source import Source
    from stackctl.sync.pipeline import Pipeline
    from stackctl.sync.scope import Scope
    from stackctl.sync.stop import Stop
    from stackctl.sync.targets.protocol import Target, TargetState

STOP_GRACE = 2.0  # seconds after which a stop breaks off the comparison in hand

Kind = Literal["missing", "extra", "different"]


@dataclass
class VerifyResult:
    """What one mapping of one database came to; the counts of rows are None where nothing was compared.

    `in_flight`: keys that differ because a change has not been sent yet. They are no differences.
    """

    tenancy: UUID
    database: str
    mapping: str
    source_rows: int | None = None
    target_rows: int | None = None
    missing: int = 0
    extra: int = 0
    different: int = 0
    repaired: int = 0
    in_flight: int = 0
    error: StackctlError | None = None
    interrupted: bool = False
    duration_ms: int = 0

    @property
    def differences(self) -> int:
        return self.missing + self.extra + self.different

    @property
    def ok(self) -> bool:
        return self.error is None and not self.interrupted and self.differences == self.repaired


def verify(
    pipeline: Pipeline,
    scope: Scope,
    stop: Stop,
    *,
    repair: bool = False,
    on_rows: Callable[[int, str], None] = lambda rows, mapping: None,
) -> list[VerifyResult]:
    """Compare these copies with their source; `repair` corrects them, and nothing but what differs is written.

    A database's failure is recorded in its checks, and the others go on. `on_rows` (rows, mapping) hears of rows that
    were compared. Raises UsageError for a name that does not exist, OperatedDatabaseLost.
    """
    checks: list[VerifyResult] = []
    with pipeline.open_session() as conn:
        pipeline.check_ready(conn)
        found = select_databases(pipeline, scope)
        unknown = find_unknown_tenancies(conn, found, scope)
    source = pipeline.open_source()
    try:
        for database in found:
            compiled = pipeline.compile_mappings(database, scope.mapping)
            mine = [VerifyResult(database.tenancy, database.id, one.mapping.name) for one in compiled]
            checks += mine
            if database.tenancy in unknown:
                _fail(mine, unknown[database.tenancy])
            elif stop.requested:
                _interrupt(mine)
            else:
                _verify_database(pipeline, source, database, compiled, mine, repair=repair, stop=stop, on_rows=on_rows)
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
) -> None:
    left = list(checks)
    try:
        resolved = pipeline.settings.resolve_database(database)
        if resolved.path is not None and not resolved.path.exists():
            raise _never_loaded_error(f"the file {resolved.path} does not exist")
        target = pipeline.open_target(database)
        try:
            with abort_when_stuck(source, target, stop, grace=STOP_GRACE):
                state = target.read_state()
                check_owner(state.owner, database.tenancy, f"the external database {database.id}")
                for one in compiled:
                    if stop.requested:
                        break
                    _verify_mapping(source, target, one, left.pop(0), state=state, repair=repair, stop=stop,
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
        _refuse_cursor(source, compiled, cursor.sequence_id if cursor else NEVER_SYNCED, check.tenancy)
        comparison = _CopyComparison(source, target, compiled, check, repair=repair, stop=stop)
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
    refuse_rewound_source(source, compiled, cursor, tenancy)


def _never_loaded_error(message: str) -> StateError:
    return StateError(
        message, code="never-loaded", hint="load it: `stackctl sync --all`, or leave it to `stackctl run`"
    )


class _CopyComparison:
    """One mapping of one tenancy against one copy."""

    def __init__(
        self, source: Source, target: Target, compiled: Compiled, check: VerifyResult, *, repair: bool, stop: Stop
    ) -> None:
        self._source = source
        self._target = target
        self._compiled = compiled
        self._mapping = compiled.mapping
        self._check = check
        self._repair = repair
        self._stop = stop
        self._statements = compile_checksums(compiled.mapping)

    def run(self, on_rows: Callable[[int, str], None]) -> None:
        # The target works in a thread of its own while the source works in this one.
        with ThreadPoolExecutor(1, thread_name_prefix="stackctl-verify") as beside:
            self._run(beside, on_rows)

    def _run(self, beside: ThreadPoolExecutor, on_rows: Callable[[int, str], None]) -> None:
        check = self._check
        target_sums = beside.submit(self._target.sum_hashes, self._compiled)
        ours, theirs = self._read_source_sums(), target_sums.result()
        check.source_rows = sum(rows for rows, _ in ours.values())
        check.target_rows = sum(rows for rows, _ in theirs.values())
        on_rows(check.source_rows, check.mapping)
        for buckets in split_differing_buckets(ours, theirs):
            candidates = self._find_candidates(beside, buckets)
            for start in range(0, len(candidates), KEYS_AT_ONCE):
                if self._stop.requested:
                    check.interrupted = True
                    return
                self._count_differences(candidates[start : start + KEYS_AT_ONCE])

    def _read(self, statement: Any, **parameters: Any) -> list[tuple[Any, ...]]:
        with self._source.open_snapshot(self._mapping.name) as conn:
            # Everything is read: see Source.load.
            conn.execute("SET LOCAL enable_nestloop = off")
            return conn.execute(statement, {"tenancy_id": self._check.tenancy} | parameters).fetchall()

    def _read_source_sums(self) -> Sums:
        rows = self._read(self._statements.source.sums)
        return {bucket: (count, int(total)) for bucket, count, total in rows}

    def _find_candidates(self, beside: ThreadPoolExecutor, buckets: list[int]) -> list[Key]:
        """The keys whose rows were not the same on both sides, each at its own time."""
        found = beside.submit(self._target.read_hashes, self._compiled, buckets)
        ours = _group_by_key(self._read(self._statements.source.hashes, wanted=buckets))
        theirs = _group_by_key(found.result())
        return sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))

    # -- candidates

    def _count_differences(self, keys: list[Key]) -> None:
        """Count what these keys come to, and repair it; a row that is rejected is counted only."""
        for key, error in rejected_rows.isolate_rejected(keys, partial(self._compare_again, repair=self._repair)):
            self._check.error = self._check.error or error
            self._compare_again([key], repair=False)

    def _compare_again(self, keys: Sequence[Key], *, repair: bool) -> None:
        """Count which of the keys differ now, and of these which don't any more at the end of the transaction."""
        with self._target.lock_cursor(self._compiled) as cursor:
            _refuse_cursor(self._source, self._compiled, cursor, self._check.tenancy)
            found, in_flight = self._find_differences(cursor, keys)
            left = set(found)
            if repair and found:
                repair_rows(self._source, self._target, self._compiled, self._check.tenancy, list(found))
                # Whoever reads ahead of its lock must see that somebody wrote.
                self._target.advance_cursor(self._compiled, cursor)
                left &= self._find_differences(cursor, list(found))[0].keys()
        count = Counter(found.values())
        self._check.missing += count["missing"]
        self._check.extra += count["extra"]
        self._check.different += count["different"]
        self._check.repaired += len(found.keys() - left)
        self._check.in_flight += in_flight

    def _find_differences(self, cursor: int, keys: Sequence[Key]) -> tuple[dict[Key, Kind], int]:
        """Of a copy that stands still at `cursor`: what differs, and how many keys are in flight."""
        self._source.wait_for_replica()
        known = Jsonb([key for key in keys if can_be_in_source(self._mapping, key)])
        asked = {"tenancy_id": self._check.tenancy, "cursor": cursor, "keys": known}
        with self._source.open_snapshot(self._mapping.name) as conn:
            ours = _group_by_key(conn.execute(self._statements.source.by_key, asked))
            moving = {tuple(row) for row in conn.execute(self._statements.in_flight, asked)}
        theirs = _group_by_key(self._target.read_hashes_by_key(self._compiled, keys))
        differing = [key for key in keys if ours.get(key) != theirs.get(key)]
        found: dict[Key, Kind] = {
            key: "missing" if key not in theirs else "extra" if key not in ours else "different"
            for key in differing
            if key not in moving
        }
        return found, len(differing) - len(found)


def _group_by_key(rows: Iterable[tuple[Any, ...]]) -> dict[Key, tuple[int, ...]]:
    """The hash of each key's row; of several rows for a key, which a copy without its key may have, all of them."""
    found: dict[Key, tuple[int, ...]] = {}
    for *key, hash_ in rows:
        name = tuple(key)
        found[name] = tuple(sorted((*found.get(name, ()), hash_)))
    return found
