"""Whose rows a batch takes: tenancies take turns in stamping, table by table.

Rows wait in the order of their tenancies. A tenancy with many of them is taken apart: such tenancies share one batch in
equal parts, and all others have as much beside them, as if they were not there. Rows that can't be stamped for now (one
that depends on them is locked) are passed over, and looked at again after a pause that follows from their number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

HELD_ROW_PAUSE = 0.0001  # seconds for each row that is held: looking at it takes about a tenth of that
LONGEST_PAUSE = 5.0  # seconds
WHOLE = UUID(int=0)  # stands for all tenancies, where rows are not in their order
_LAST = (1 << 128) - 1


@dataclass(frozen=True)
class Turns:
    """Ranges of tenancies, one after the other. Of each, `skips` rows are passed over and up to `limits` taken.

    No more than `total` are taken together.
    """

    firsts: list[UUID]
    lasts: list[UUID]
    skips: list[int]
    limits: list[int]
    total: int


@dataclass(frozen=True)
class TakenRows:
    """What a batch has found of one tenancy's rows, and how many of them it stamped."""

    tenancy: UUID
    found: int
    stamped: int


@dataclass
class _Apart:
    """A tenancy that is taken by itself, from behind so many rows that are held.

    `asked` rows were asked for, 0 if it was not its turn. It is left out until `until`, when that is not 0.
    """

    held: int = 0
    window: int = 1
    asked: int = 0
    until: float = 0.0


class TurnTaker:
    """The turns in one table, with batches of `limit` rows, which may change; times are those of a monotonic clock.

    `whole`: its rows are in no order of tenancies, so that there is one turn for all of them.
    """

    def __init__(self, limit: int, *, whole: bool = False) -> None:
        self.limit = limit
        self._whole = whole
        self._start = 0
        self._apart: dict[UUID, _Apart] = {WHOLE: _Apart()} if whole else {}

    def list_turns(self, left_out: Collection[UUID], now: float) -> Turns | None:
        """Whose turn it is, without these tenancies; None: nobody's."""
        active: dict[UUID, _Apart] = {}
        for tenancy, one in self._apart.items():
            one.asked = 0
            if one.until and one.until <= now:
                one.held, one.window, one.until = 0, 1, 0.0
            if not one.until and tenancy not in left_out:
                active[tenancy] = one
        ranges = [(tenancy.int, tenancy.int, one.held) for tenancy, one in active.items()]
        for one in active.values():
            one.asked = max(1, self.limit // len(active)) * one.window
        limits = [one.asked for one in active.values()]
        total = sum(limits)
        if not self._whole:
            total += self.limit
            gaps = sorted(tenancy.int for tenancy in {*left_out, *self._apart})
            ranges += [(first, last, 0) for first, last in self._list_others(gaps)]
            limits += [total] * (len(ranges) - len(limits))
        if not ranges:
            return None
        firsts, lasts, skips = zip(*ranges, strict=True)
        return Turns([UUID(int=one) for one in firsts], [UUID(int=one) for one in lasts], [*skips], limits, total)

    def _list_others(self, gaps: Collection[int]) -> Iterator[tuple[int, int]]:
        for begin, end in ((self._start, _LAST), (0, self._start - 1)):
            first = begin
            for gap in gaps:
                if first <= gap <= end:
                    if first < gap:
                        yield first, gap - 1
                    first = gap + 1
            if first <= end:
                yield first, end

    def note_taken(self, taken: Iterable[TakenRows], total: int, now: float) -> bool:
        """Learn from what turns of so many rows have brought; whether there may be more behind what was found."""
        by_tenancy = {one.tenancy: one for one in taken}
        full = sum(one.found for one in by_tenancy.values()) >= total
        more = full
        for tenancy, apart in list(self._apart.items()):
            if apart.asked:
                one = by_tenancy.pop(tenancy, TakenRows(tenancy, 0, 0))
                more |= self._note_apart(apart, one, now)
                if not apart.held and one.found < apart.asked and not self._whole:
                    del self._apart[tenancy]
        others = sorted(by_tenancy.values(), key=lambda one: (one.tenancy.int - self._start) & _LAST)
        for one in others:
            if one.found > one.stamped or one.found > self.limit // 2:
                self._apart[one.tenancy] = _Apart(one.found - one.stamped)
        if full and others:
            self._start = (others[-1].tenancy.int + 1) & _LAST
        return more

    @staticmethod
    def _note_apart(apart: _Apart, one: TakenRows, now: float) -> bool:
        apart.held += one.found - one.stamped
        if one.found >= apart.asked:
            # Where all are held, what is looked at grows: it takes few steps to get behind them.
            apart.window = 1 if one.stamped else apart.window * 2
            return True
        if apart.held:
            apart.until = now + min(apart.held * HELD_ROW_PAUSE, LONGEST_PAUSE)
        return False
