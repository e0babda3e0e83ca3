"""Stage 4: bring one external database up to date, mapping by mapping, batch by batch.

Exactly-once effect: one batch is one transaction of the target. It takes the cursor with a lock, *then* reads the
source, writes the rows, advances the cursor and commits. A kill at any point leaves the batch whole or absent, and
two engines on one mapping serialise at the cursor.
"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, TypeVar

from stackctl.core.errors import StackctlError
from stackctl.sync.engine import rejected_rows
from stackctl.sync.engine.batches import BatchSender, CopyWork
from stackctl.sync.engine.comparison import VerifyResult
from stackctl.sync.engine.rejected_rows import ROWS_REJECTED
from stackctl.sync.engine.resend import Resend
from stackctl.sync.engine.source_errors import OperatedDatabaseLost
from stackctl.sync.engine.source_rewound import mark_rewound_copies, repair_rewound_copy, to_ahead_error
from stackctl.sync.targets.mapping_changes import ChangePolicy
from stackctl.sync.targets.protocol import NEVER_SYNCED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from uuid import UUID

    from stackctl.mapping.compile import Compiled
    from stackctl.sync.engine.source import Source
    from stackctl.sync.stop import StopRequest
    from stackctl.sync.targets.protocol import Target, TargetState

_T = TypeVar("_T")


@dataclass
class MappingResult:
    """What was done for one mapping; `cursor` is where it stands now. `error`: what it ended with, for itself."""

    mapping: str
    upserted: int = 0
    deleted: int = 0
    batches: int = 0
    cursor: int = NEVER_SYNCED
    duration_ms: int = 0
    error: StackctlError | None = None


@dataclass
class DatabaseResult:
    """What was done for one external database. `interrupted`: asked to stop with rows left to send.

    `error` stands for all that went wrong. It is of the database as a whole if `failed`, and else the first of its
    mappings'. `unfinished`: rows of a changed mapping are left to be sent again, and it was time for others. `remarks`
    are to be told to people, `copies` the names of the cursors that were found there.
    """

    tenancy: UUID
    database: str
    type: str
    status: Literal["ok", "error"] = "ok"
    error: StackctlError | None = None
    failed: bool = False
    interrupted: bool = False
    unfinished: bool = False
    remarks: list[str] = field(default_factory=list[str])
    copies: set[str] = field(default_factory=set[str])
    mappings: list[MappingResult] = field(default_factory=list[MappingResult])


@dataclass(frozen=True)
class SyncOptions:
    """How to sync: rows a batch, whether everything is to be sent again, and who hears of rows read (mapping, rows).

    Rejected rows are tried again unless that was done less than `retry_pause` ago. `adopt`: a table that has rows and
    was never loaded is taken over, not refused. `repair_rewound`: copies that are ahead of their source are not refused
    but compared and corrected; after a fail-over all are. `rebuild` names a mapping whose table has to be rebuilt;
    `policy` says how changes of the others are met. Rows of changed mappings are sent again for `resend_time` seconds.
    """

    batch_size: int
    full: bool = False
    adopt: bool = False
    rebuild: str | None = None
    policy: ChangePolicy = field(default_factory=ChangePolicy)
    resend_time: float = math.inf
    retry_pause: timedelta = timedelta(0)
    repair_rewound: bool = False
    on_rows: Callable[[str, int], None] = lambda mapping, rows: None


def sync_database(
    take_source: Callable[[], Source],
    target: Target,
    compiled: Sequence[Compiled],
    result: DatabaseResult,
    options: SyncOptions,
    stop: StopRequest,
) -> None:
    """Send everything that is above the cursors; fills `result` as it goes, with the mappings' errors as well.

    The source is taken when the target has answered. Raises what belongs to the database as a whole after recording
    what was done before it; ServiceErrors of the operated database pass through as well.
    """
    states, compiled = _do_apart(compiled, result, lambda some: target.prepare(result.tenancy, some, options.policy))
    result.remarks += [remark for state in states for remark in state.followed]
    if not compiled:
        return
    state = states[-1]
    result.copies |= state.cursors.keys()
    options.policy.agreed.update((str(result.tenancy), result.database, one.mapping.name) for one in compiled)
    source = take_source()
    source.wait_for_replica()
    work = _Work(source, target, state, result, options, stop)
    if work.send_changes(compiled):
        work.resend_changed_mappings(compiled)
    if result.interrupted:
        return
    left = rejected_rows.list_rows(source.primary, result.tenancy, result.database)
    for entry in result.mappings:
        rows = [row for row in left if row.mapping == entry.mapping]
        if rows and entry.error is None:
            entry.error = rejected_rows.to_error(rows)


class _Work:
    """What is done for the mappings of one database whose target has answered. Each mapping's error is its own."""

    def __init__(
        self,
        source: Source,
        target: Target,
        state: TargetState,
        result: DatabaseResult,
        options: SyncOptions,
        stop: StopRequest,
    ) -> None:
        self._source = source
        self._target = target
        self._state = state
        self._result = result
        self._options = options
        self._stop = stop
        self._entries: dict[str, MappingResult] = {}

    def send_changes(self, compiled: Sequence[Compiled]) -> bool:
        """Load what was never loaded, send what is above the cursors; False when the stop came first."""
        source, target, result, options = self._source, self._target, self._result, self._options
        known = self._state.cursors
        cursors = {
            c.mapping.name: known[c.mapping.name].sequence_id if c.mapping.name in known else NEVER_SYNCED
            for c in compiled
        }
        waiting = [
            c
            for c in compiled
            if options.full or c.mapping.name == options.rebuild or cursors[c.mapping.name] == NEVER_SYNCED
        ]
        seen = [c for c in compiled if c not in waiting]
        news, seen = _do_apart(seen, result, lambda some: source.find_changed_mappings(some, result.tenancy, cursors))
        changed = set[str]().union(*news)
        troubled = {row.mapping for row in rejected_rows.list_rows(source.primary, result.tenancy, result.database)}
        if options.full:
            source.refuse_low_sequence(compiled, result.tenancy)
        rewound, place = mark_rewound_copies(
            source, target, seen, self._state, result.tenancy, suspect=options.repair_rewound
        )
        for one in compiled:
            name = one.mapping.name
            if one not in waiting and one not in seen:
                continue  # it has failed already
            entry = self._entries[name] = MappingResult(name, cursor=cursors[name])
            result.mappings.append(entry)
            if one in rewound and not options.repair_rewound:
                entry.error = to_ahead_error(name, cursors[name], result.tenancy)
                continue
            if name not in changed and one not in waiting and one not in rewound and name not in troubled:
                continue
            with _record_error(entry):
                if one in rewound:
                    check = VerifyResult(result.tenancy, result.database, name)
                    repair_rewound_copy(source, target, one, check, self._stop)
                    entry.upserted, entry.deleted = check.missing + check.different, check.extra
                elif one in waiting and place is not None and self._state.places.get(name) != place:
                    with target.lock_cursor(one, adopt=options.adopt, rebuild=name == options.rebuild):
                        target.record_place(one, place)
                batches = BatchSender(self._describe(one))
                finished = batches.send()
                if name in troubled and finished:
                    batches.retry_rejected_rows()
                if not finished:
                    result.interrupted = True
                    return False
        return True

    def _describe(self, one: Compiled) -> CopyWork:
        return CopyWork(self._source, self._target, one, self._result.tenancy, self._result.database,
                        self._entries[one.mapping.name], self._options, self._stop)  # fmt: skip

    def resend_changed_mappings(self, compiled: Sequence[Compiled]) -> None:
        """Send rows again whose mapping was changed, for as long as there is time."""
        result = self._result
        deadline = time.monotonic() + self._options.resend_time
        for one in compiled:
            entry = self._entries.get(one.mapping.name)
            record = self._state.copies.get(one.mapping.name)
            if entry is None or entry.error is not None or record is None or record.resend_up_to is None:
                continue
            with _record_error(entry):
                walk = Resend(self._describe(one))
                if not walk.run(lambda: self._send_news(compiled), deadline):
                    result.interrupted |= self._stop.requested
                    result.unfinished = not self._stop.requested

    def _send_news(self, compiled: Sequence[Compiled]) -> None:
        """What has changed meanwhile goes first."""
        well = [
            c
            for c in compiled
            if (entry := self._entries.get(c.mapping.name)) and entry.error is None and entry.cursor > NEVER_SYNCED
        ]
        cursors = {c.mapping.name: self._entries[c.mapping.name].cursor for c in well}
        found = self._source.find_changed_mappings(well, self._result.tenancy, cursors) if well else set[str]()
        for one in well:
            if one.mapping.name in found:
                BatchSender(self._describe(one)).send()


@contextmanager
def _record_error(entry: MappingResult) -> Iterator[None]:
    """One mapping that can't be sent does not hold up the others."""
    try:
        yield
    except StackctlError as error:
        if _is_of_database(error):
            raise
        entry.error = error


def _do_apart(
    compiled: Sequence[Compiled], result: DatabaseResult, work: Callable[[Sequence[Compiled]], _T]
) -> tuple[list[_T], list[Compiled]]:
    """Do `work` for all mappings at once; where that fails, for each apart, so that only its own trouble stops it.

    Returns what the work yielded, and the mappings that it could be done for; the others are recorded in `result`.
    Raises what is of the database as a whole: what all of them end with alike.
    """
    if not compiled:
        return [], []
    try:
        return [work(compiled)], list(compiled)
    except StackctlError as error:
        if _is_of_database(error):
            raise
        together = error
    errors: dict[str, StackctlError] = {}
    yielded: list[_T] = []
    for one in compiled:
        try:
            yielded.append(work([one]))
        except StackctlError as error:
            if _is_of_database(error):
                raise
            errors[one.mapping.name] = error
    if len(errors) > 1 and len(errors) == len(compiled) and len({error.message for error in errors.values()}) == 1:
        raise together
    result.mappings += [MappingResult(name, error=error) for name, error in errors.items()]
    return yielded, [one for one in compiled if one.mapping.name not in errors]


_OF_DATABASE = (
    "connection-lost",
    "unreachable",
    "too-many-connections",
    "out-of-resources",
    "lock-timeout",
    "other-tenancy",
    "operated-database",
)


def _is_of_database(error: StackctlError) -> bool:
    return isinstance(error, OperatedDatabaseLost) or error.code in _OF_DATABASE


def attempt_sync(
    take_source: Callable[[], Source],
    open_target: Callable[[], Target],
    compiled: Callable[[], Sequence[Compiled]],
    result: DatabaseResult,
    options: SyncOptions,
    stop: StopRequest,
) -> bool:
    """`sync_database` with this database's failure recorded in `result` instead of raised, so that others go on.

    Whether the target is still good for the next time. OperatedDatabaseLost is raised: nobody can go on without it.
    """
    try:
        mappings = compiled()
        if mappings:
            sync_database(take_source, open_target(), mappings, result, options, stop)
    except OperatedDatabaseLost:
        raise
    except StackctlError as error:
        result.status, result.error, result.failed = "error", error, True
        return False
    errors = [one.error for one in result.mappings if one.error is not None]
    troubles = [error for error in errors if error.code != ROWS_REJECTED]
    if errors:
        result.status, result.error = "error", (troubles or [rejected_rows.join_errors(errors)])[0]
    return not troubles
