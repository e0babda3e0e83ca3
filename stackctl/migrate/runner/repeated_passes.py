"""A file that asks to be repeated: how far it has come, and when it is one that never ends."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackctl.core.errors import AnswerNo
from stackctl.migrate.runner.events import RepeatedPass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stackctl.migrate.files import Migration
    from stackctl.migrate.runner.session import Session

ANSWER = "should_repeat_migration"  # the column that says whether to run again

FIRST_PAUSE = 0.1  # seconds between two passes
LONGEST_PAUSE = 5.0  # seconds; reached by doubling while passes change nothing
IDLE_PASSES = 10  # passes in a row that change nothing; about twenty seconds, for rows that others have locked
MOST_PASSES = 100_000  # of one run; a rerun may go on
# Updating far more rows than there are means updating the same ones for ever.
CHURN_PASSES = 100  # before which that is not asked
CHURN = 10  # updates a row


@dataclass(frozen=True)
class RowChanges:
    """What the transaction in hand has changed so far: rows, those of them updated, and rows in the updated tables."""

    rows: int
    updates: int
    live: int

    def since(self, before: RowChanges) -> RowChanges:
        """What came after an earlier look in the same transaction."""
        return RowChanges(self.rows - before.rows, self.updates - before.updates, self.live)


def find_unclear_answer(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Why the rows of a repeated statement say neither yes nor no; none at all would be a no.

    A backfill that ends by mistake is half of one, and nobody would know.
    """
    wanted = f"a repeated statement returns one row with a boolean {ANSWER}, or no row"
    if len(rows) > 1:
        return f"{wanted}; this one returned several rows"
    if columns.count(ANSWER) != 1:
        return f"{wanted}; this one has the columns {', '.join(columns)}"
    value = rows[0][ANSWER]
    if not isinstance(value, bool):
        return f"{wanted}; here it is {'NULL' if value is None else type(value).__name__}"
    return None


def count_changes(session: Session) -> RowChanges | None:
    """Ask the server, which counts what triggers and cascades change as well; None when track_counts is off."""
    row = session.fetch_named("count_changed_rows")[0]
    return RowChanges(row["rows"], row["updates"], row["live"]) if row["counted"] else None


class RepeatedPasses:
    """The passes of one file in one run."""

    def __init__(self, migration: Migration) -> None:
        self._migration = migration
        self._started = time.monotonic()
        self._passes = self._idle = self._rows = self._updates = self._live = 0
        self._remaining: int | None = None

    def add_pass(self, changes: RowChanges | None, remaining: int | None) -> RepeatedPass:
        """A pass is committed and asks for another; `changes` is None when its rows can't be counted.

        Raises AnswerNo (`migration-never-ends`) when none may follow.
        """
        self._passes += 1
        idle = changes.rows == 0 if changes is not None else remaining is not None and remaining == self._remaining
        self._idle = self._idle + 1 if idle else 0
        self._remaining = remaining
        if changes is not None:
            self._rows += changes.rows
            self._updates += changes.updates
            self._live = max(self._live, changes.live)
        if self._idle >= IDLE_PASSES:
            raise self._never_ends(f"{self._idle} passes in a row changed no row")
        if self._passes >= CHURN_PASSES and self._live and self._updates > CHURN * self._live:
            raise self._never_ends(f"it updated {self._updates:,} rows in tables that hold about {self._live:,}")
        if self._passes >= MOST_PASSES:
            raise self._never_ends(f"{self._passes:,} passes have run")
        elapsed = max(time.monotonic() - self._started, 0.001)
        return RepeatedPass(
            rows=changes.rows if changes is not None else None,
            total=self._rows if changes is not None else None,
            remaining=remaining,
            per_second=self._rows / elapsed,
        )

    @property
    def pause(self) -> float:
        """Seconds before the next pass."""
        return min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._idle)

    def _never_ends(self, why: str) -> AnswerNo:
        return AnswerNo(
            f"{self._migration.path}: its should_repeat_migration stays true, and {why}",
            code="migration-never-ends",
            hint="fix its condition, or free the rows that others hold locked; what ran is committed, and"
            " stackctl migrate up goes on from there",
            details={"file": str(self._migration.path), "passes": self._passes, "rows": self._rows},
        )
