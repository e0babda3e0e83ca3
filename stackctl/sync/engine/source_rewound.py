"""An operated database that was rewound, by a restore or another taking its place: copies are ahead of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackctl.core.errors import StateError
from stackctl.sync.targets.protocol import SOURCE_REWOUND

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from stackctl.mapping.compile import Compiled
    from stackctl.sync.engine.source import Source
    from stackctl.sync.targets.protocol import Target


def mark_rewound_source(
    source: Source, target: Target, compiled: Sequence[Compiled], cursors: dict[str, int], tenancy: UUID
) -> StateError | None:
    """A cursor above every id ever given means that the source was rewound: what comes next would be skipped.

    That is written down in place of the cursor, because the ids will pass it one day; only --full takes it away.
    Returns the error that the sync ends with. Raises StateError `sequence-behind`.
    """
    last = source.read_last_sequence_id() if any(cursors[c.mapping.name] > 0 for c in compiled) else 0
    if any(cursors[c.mapping.name] > last for c in compiled):
        source.refuse_low_sequence(compiled, tenancy)  # the rows are as new as the copies: only the sequence is not
    names = [c.mapping.name for c in compiled if cursors[c.mapping.name] == SOURCE_REWOUND]
    for one in compiled:
        cursor = cursors[one.mapping.name]
        if cursor > last:
            names.append(f"{one.mapping.name} (cursor {cursor})")
            with target.lock_cursor(one) as locked:
                if locked == cursor:
                    target.advance_cursor(one, SOURCE_REWOUND)
    if not names:
        return None
    return StateError(
        f"the copies of {', '.join(names)} are ahead of the operated database, which has given ids up to {last}: "
        "it was restored, or another one took its place",
        code="cursor-ahead",
        hint="send everything again: `stackctl sync TENANCY --full`",
        details={"last_sequence_id": last},
    )


def refuse_rewound_source(source: Source, one: Compiled, cursor: int, tenancy: UUID) -> None:
    """Raise StateError `cursor-ahead` for a copy that has seen ids which its source never gave.

    Raises StateError `sequence-behind` when the rows have them.
    """
    ahead = cursor > 0 and cursor > source.read_last_sequence_id()
    if ahead:
        source.refuse_low_sequence([one], tenancy)
    if ahead or cursor == SOURCE_REWOUND:
        raise StateError(
            f"the copy of {one.mapping.name} is ahead of the operated database: that was restored, or another took its"
            " place",
            code="cursor-ahead",
            hint="send everything again: `stackctl sync TENANCY --full`",
        )
