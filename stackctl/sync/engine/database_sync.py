"""Stage 4: bring one external database up to date, mapping by mapping, batch by batch.

Exactly-once effect: one batch is one transaction of the target. It takes the cursor with a lock, *then* reads the
source, writes the rows, advances the cursor and commits. A kill at any point leaves the batch whole or absent, and
two engines on one mapping serialise at the cursor.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from stackctl.core.errors import StackctlError
from stackctl.sync.engine import rejected_rows
from stackctl.sync.engine.batches import BatchSender
from stackctl.sync.engine.comparison import VerifyResult
from stackctl.sync.engine.resend import Resend
from stackctl.sync.engine.source_errors import OperatedDatabaseLost
from stackctl.sync.engine.source_rewound import mark_rewound_copies, repair_rewound_copy, to_ahead_error
from stackctl.sync.targets.mapping_changes import ChangePolicy
from stackctl.sync.targets.protocol import NEVER_SYNCED, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from stackctl.mapping.compile import Compiled
    from stackctl.sync.engine.source import Source
    from stackctl.sync.stop import Stop


@dataclass
class MappingResult:
    """What was done for one mapping; `cursor` is where it stands now."""

    mapping: str
    upserted: int = 0
    deleted: int = 0
    batches: int = 0
    cursor: int = NEVER_SYNCED
    duration_ms: int = 0


@dataclass
class DatabaseResult:
    """What was done for one external database. `interrupted`: stopped by a signal with rows left to send.

    `unfinished`: rows of a changed mapping are left to be sent again, and it was time for others. `remarks` are to be
    told to people, `copies` the names of the cursors that were found there.
    """

    tenancy: UUID
    database: str
    type: str
    status: Literal["ok", "error"] = "ok"
    error: StackctlError | None = None
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
    but compared and corrected; after a fail-over all are. `rebuild` names a mapping whose table is to be built anew;
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
    source: Source,
    target: Target,
    compiled: Sequence[Compiled],
    result: DatabaseResult,
    options: SyncOptions,
    stop: Stop,
) -> None:
    """Send everything that is above the cursors; fills `result` as it goes.

    Raises what belongs to this database (or to a mapping's statement) after recording what was done before it;
    ServiceErrors of the operated database pass through as well.
    """
    state = target.prepare(result.tenancy, compiled, options.policy)
    known = state.cursors
    result.copies |= known.keys()
    result.remarks += state.followed
    options.policy.agreed.update((str(result.tenancy), result.database, one.mapping.name) for one in compiled)
    source.wait_for_replica()
    cursors = {
        c.mapping.name: known[c.mapping.name].sequence_id if c.mapping.name in known else NEVER_SYNCED for c in compiled
    }
    waiting = [
        c
        for c in compiled
        if options.full or c.mapping.name == options.rebuild or cursors[c.mapping.name] == NEVER_SYNCED
    ]
    seen = [c for c in compiled if c not in waiting]
    news = source.find_changed_mappings(seen, result.tenancy, cursors) if seen else set[str]()
    troubled = {row.mapping for row in rejected_rows.list_rows(source.primary, result.tenancy, result.database)}
    if options.full:
        source.refuse_low_sequence(compiled, result.tenancy)
    rewound, place = mark_rewound_copies(source, target, seen, state, result.tenancy, suspect=options.repair_rewound)
    failure: StackctlError | None = None
    if rewound and not options.repair_rewound:
        failure = to_ahead_error({one.mapping.name: cursors[one.mapping.name] for one in rewound})
    failed: list[Compiled] = []
    for one in compiled:
        name = one.mapping.name
        entry = MappingResult(name, cursor=cursors[name])
        result.mappings.append(entry)
        if one in rewound and not options.repair_rewound:
            failed.append(one)
            continue
        if name not in news and one not in waiting and one not in rewound and name not in troubled:
            continue
        try:
            if one in rewound:
                check = VerifyResult(result.tenancy, result.database, name)
                repair_rewound_copy(source, target, one, check, stop)
                entry.upserted, entry.deleted = check.missing + check.different, check.extra
            elif one in waiting and place is not None and state.places.get(name) != place:
                with target.lock_cursor(one, adopt=options.adopt, rebuild=name == options.rebuild):
                    target.record_place(one, place)
            batches = BatchSender(source, target, one, tenancy=result.tenancy, database=result.database, result=entry,
                              options=options, stop=stop)  # fmt: skip
            finished = batches.send()
            if name in troubled and finished:
                batches.retry_rejected_rows()
            if not finished:
                result.interrupted = True
                return
        except OperatedDatabaseLost:
            raise
        except StackctlError as error:
            if error.code in _DATABASE_IS_GONE:
                raise
            # One mapping that can't be sent does not hold up the others.
            failed.append(one)
            failure = failure or error

    def send_news() -> None:
        """What has changed meanwhile goes first."""
        entries = {entry.mapping: entry for entry in result.mappings}
        well = [c for c in compiled if entries[c.mapping.name].cursor > NEVER_SYNCED and c not in failed]
        cursors = {c.mapping.name: entries[c.mapping.name].cursor for c in well}
        found = source.find_changed_mappings(well, result.tenancy, cursors) if well else set[str]()
        for one in well:
            if one.mapping.name in found:
                BatchSender(source, target, one, tenancy=result.tenancy, database=result.database,
                            result=entries[one.mapping.name], options=options, stop=stop).send()  # fmt: skip

    deadline = time.monotonic() + options.resend_time
    for one, entry in zip(compiled, result.mappings, strict=True):
        record = state.copies.get(one.mapping.name)
        if one in failed or record is None or record.resend_up_to is None:
            continue
        try:
            walk = Resend(source, target, one, tenancy=result.tenancy, database=result.database, result=entry,
                          options=options, stop=stop)  # fmt: skip
            if not walk.run(send_news, deadline):
                result.interrupted |= stop.requested
                result.unfinished = not stop.requested
        except OperatedDatabaseLost:
            raise
        except StackctlError as error:
            if error.code in _DATABASE_IS_GONE:
                raise
            failure = failure or error
    if failure is not None:
        raise failure
    names = {c.mapping.name for c in compiled}
    left = [
        row for row in rejected_rows.list_rows(source.primary, result.tenancy, result.database) if row.mapping in names
    ]
    if left:
        raise rejected_rows.to_error(left)


_DATABASE_IS_GONE = ("connection-lost", "unreachable", "too-many-connections", "out-of-resources", "lock-timeout")


def attempt_sync(
    source: Source,
    open_target: Callable[[], Target],
    compiled: Callable[[], Sequence[Compiled]],
    result: DatabaseResult,
    options: SyncOptions,
    stop: Stop,
) -> Target | None:
    """`sync_database` with this database's failure recorded in `result` instead of raised, so that others go on.

    Returns the target, still good for the next time, or None after a failure. OperatedDatabaseLost is raised:
    nobody can go on without it.
    """
    target: Target | None = None
    try:
        target = open_target()
        sync_database(source, target, compiled(), result, options, stop)
    except BaseException as error:
        if target is not None:
            target.close()
        if isinstance(error, OperatedDatabaseLost) or not isinstance(error, StackctlError):
            raise
        result.status, result.error = "error", error
        return None
    return target
