"""An operated database that was set back, by a restore or a fail-over that lost its last transactions.

Copies are ahead of it then: they have rows that it does not know, and the ids that it gives next would be taken for old
ones. Such a copy is marked in place of its cursor, because the ids will pass it one day.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackctl.core.errors import StateError
from stackctl.sync.engine import rejected_rows
from stackctl.sync.engine.comparison import CopyComparison
from stackctl.sync.targets.protocol import NEVER_SYNCED, SOURCE_REWOUND

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from stackctl.mapping.compile import Compiled
    from stackctl.sync.engine.comparison import VerifyResult
    from stackctl.sync.engine.source import Source
    from stackctl.sync.stop import StopRequest
    from stackctl.sync.targets.protocol import Target, TargetState


def mark_rewound_copies(
    source: Source, target: Target, compiled: Sequence[Compiled], state: TargetState, tenancy: UUID, *, suspect: bool
) -> tuple[list[Compiled], str | None]:
    """The copies that are ahead of the operated database, each marked so; and where that lives, which is recorded.

    A copy is ahead when its cursor is above every id ever given, or, if it was fed when the database lived elsewhere,
    above what both have in common. `suspect`: every copy that was fed elsewhere counts as ahead, because it may have
    been sent rows in a state that was lost before they got an id. Raises StateError `sequence-behind`.
    """
    last, place = source.read_position()
    cursors = {
        one.mapping.name: state.cursors[one.mapping.name].sequence_id if one.mapping.name in state.cursors
        else NEVER_SYNCED for one in compiled
    }  # fmt: skip
    if any(cursor > last for cursor in cursors.values()):
        source.refuse_low_sequence(compiled, tenancy)  # the rows are as new as the copies: only the sequence is not
    found: list[Compiled] = []
    for one in compiled:
        name = one.mapping.name
        cursor, fed_from = cursors[name], state.places.get(name)
        moved = place is not None and fed_from not in (None, place)
        rewound = cursor > last
        if moved and fed_from is not None and cursor > NEVER_SYNCED:
            common = source.find_last_common_id(fed_from)
            rewound = rewound or suspect or common is None or cursor > common
        if rewound or cursor == SOURCE_REWOUND:
            found.append(one)
        if not rewound and (place is None or place == fed_from):
            continue
        with target.lock_cursor(one) as locked:
            if locked != cursor:
                continue  # another engine has just judged it
            if rewound:
                target.advance_cursor(one, SOURCE_REWOUND)
            if place is not None:
                target.record_place(one, place)
    return found, place


def to_ahead_error(mapping: str, cursor: int, tenancy: UUID) -> StateError:
    """What is said of a copy that is ahead; `cursor` is what it was before it was marked, if that is known."""
    at = f" (cursor {cursor})" if cursor > 0 else ""
    return StateError(
        f"the copy of {mapping}{at} is ahead of the operated database: it was restored, or another server took its"
        " place without the last transactions",
        code="cursor-ahead",
        hint=f"`stackctl verify {tenancy} --repair` corrects what differs; `stackctl sync {tenancy} --full` sends all"
        " again",
        details={"mapping": mapping},
    )


def is_copy_ahead(source: Source, one: Compiled, cursor: int, tenancy: UUID) -> bool:
    """Whether the copy has seen ids that the source never gave. Raises StateError `sequence-behind` if its rows do."""
    ahead = cursor > 0 and cursor > source.read_last_sequence_id()
    if ahead:
        source.refuse_low_sequence([one], tenancy)
    return ahead or cursor == SOURCE_REWOUND


def repair_rewound_copy(
    source: Source,
    target: Target,
    compiled: Compiled,
    check: VerifyResult,
    stop: StopRequest,
    on_rows: Callable[[int, str], None] = lambda rows, mapping: None,
) -> None:
    """Compare a copy that is ahead with the operated database and correct what differs; then it goes on from there.

    It is marked until all of it was compared, so that a kill in between only means another comparison. Rows that the
    target rejects are recorded. Counts in `check`.
    """
    with target.lock_cursor(compiled):
        target.advance_cursor(compiled, SOURCE_REWOUND)
    quarantine = rejected_rows.Quarantine(source.primary, check.tenancy, check.database, check.mapping)
    source.wait_for_replica()
    # What has an id up to here is to be right; what gets a higher one meanwhile is sent afterwards.
    right_up_to = source.read_highest_stamp(compiled, check.tenancy)
    CopyComparison(
        source, target, compiled, check, accept_cursor=lambda cursor: right_up_to, repair=True, stop=stop,
        on_rejected=lambda key, error: quarantine.add_row(list(key), 0, error),
    ).run(on_rows)  # fmt: skip
    if not check.interrupted:
        with target.lock_cursor(compiled) as cursor:
            if cursor == SOURCE_REWOUND:
                target.advance_cursor(compiled, right_up_to)
