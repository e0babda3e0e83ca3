"""The modes of PostgreSQL's table locks: their order, what each has to wait for, and what it holds up."""

from __future__ import annotations

from typing import Literal

Blocks = Literal["nothing", "schema changes", "writes", "reads and writes"]

# From the weakest to the strongest, as pg_locks writes them.
MODES = (
    "AccessShareLock", "RowShareLock", "RowExclusiveLock", "ShareUpdateExclusiveLock", "ShareLock",
    "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock",
)  # fmt: skip
CONFLICTS = {
    "AccessShareLock": MODES[7:], "RowShareLock": MODES[6:], "RowExclusiveLock": MODES[4:],
    "ShareUpdateExclusiveLock": MODES[3:], "ShareLock": (MODES[2], MODES[3], *MODES[5:]),
    "ShareRowExclusiveLock": MODES[2:], "ExclusiveLock": MODES[1:], "AccessExclusiveLock": MODES,
}  # fmt: skip
BLOCKS: dict[str, Blocks] = {
    "AccessShareLock": "nothing", "RowShareLock": "nothing", "RowExclusiveLock": "nothing",
    "ShareUpdateExclusiveLock": "schema changes", "ShareLock": "writes", "ShareRowExclusiveLock": "writes",
    "ExclusiveLock": "writes", "AccessExclusiveLock": "reads and writes",
}  # fmt: skip
