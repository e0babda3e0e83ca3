"""Tenancies take turns in stamping: what each batch asks for, and what it learns from the answer."""

from __future__ import annotations

from collections import Counter
from random import Random
from uuid import UUID

import pytest

from stackctl.sync.changes.turns import HELD_ROW_PAUSE, WHOLE, TakenRows, TurnTaker

A, B, C, Z = (UUID(int=number) for number in (0, 0xB, 0xC, (1 << 128) - 1))


class Table:
    """Rows that wait, by tenancy; the first `held` of each can't be stamped."""

    def __init__(self, **waiting: int) -> None:
        self.waiting = Counter({globals()[name]: count for name, count in waiting.items()})
        self.held = Counter[UUID]()
        self.now = 0.0

    def batch(self, taker: TurnTaker, *left_out: UUID) -> tuple[Counter[UUID], bool]:
        """What one batch stamps, and whether there may be more."""
        turns = taker.list_turns(left_out, self.now)
        if turns is None:
            return Counter(), False
        found, stamped = Counter[UUID](), Counter[UUID]()
        room = turns.total
        for first, last, skip, limit in zip(turns.firsts, turns.lasts, turns.skips, turns.limits, strict=True):
            most = min(limit, room)
            for tenancy in sorted(one for one in self.waiting if first <= one <= last):
                assert tenancy not in left_out
                assert tenancy not in found, "no row may be asked for twice"
                rows = range(self.waiting[tenancy])[skip:][:most]
                skip = max(0, skip - self.waiting[tenancy])
                if rows:
                    found[tenancy] = len(rows)
                    stamped[tenancy] = sum(row >= self.held[tenancy] for row in rows)
                most -= len(rows)
                room -= len(rows)
        self.waiting -= stamped
        taken = [TakenRows(tenancy, count, stamped[tenancy]) for tenancy, count in found.items()]
        return +stamped, taker.note_taken(taken, turns.total, self.now)


def test_a_change_of_another_tenancy_is_in_the_next_batch() -> None:
    table, taker = Table(A=5000), TurnTaker(100)
    for _ in range(3):
        assert table.batch(taker) == ({A: 100}, True)
    for tenancy in (Z, B):
        table.waiting[tenancy] = 1
        assert table.batch(taker)[0] == {A: 100, tenancy: 1}


def test_tenancies_with_many_rows_have_equal_parts() -> None:
    table, taker = Table(A=5000, B=5000, C=5000), TurnTaker(100)
    for _ in range(10):
        table.batch(taker)
    before = Counter(table.waiting)
    table.waiting[Z] = 1
    assert table.batch(taker)[0] == {A: 33, B: 33, C: 33, Z: 1}
    for _ in range(9):
        table.batch(taker)
    assert before - table.waiting == {A: 330, B: 330, C: 330}


def test_many_tenancies_with_a_row_each_come_in_turn() -> None:
    table, taker = Table(), TurnTaker(100)
    table.waiting = Counter(UUID(int=number) for number in range(250))
    assert [sum(table.batch(taker)[0].values()) for _ in range(4)] == [100, 100, 50, 0]


def test_rows_that_are_held_are_passed_over_until_a_pause_is_over() -> None:
    table, taker = Table(A=1500), TurnTaker(100)
    table.held[A] = 1000
    stamped = Counter[UUID]()
    steps, more = 0, True
    while more:
        done, more = table.batch(taker)
        stamped += done
        steps += 1
    assert stamped == {A: 500}
    assert steps < 12
    table.waiting[B] = 1
    assert table.batch(taker) == ({B: 1}, False)
    assert table.batch(taker) == ({}, False)
    table.held[A] = 0
    table.now += 1000 * HELD_ROW_PAUSE
    assert table.batch(taker)[0] == {A: 100}


def test_tenancies_that_are_left_out_are_not_asked_for() -> None:
    table, taker = Table(A=10, B=10, Z=500), TurnTaker(100)
    assert table.batch(taker, A, Z)[0] == {B: 10}
    assert table.batch(taker, A)[0] == {Z: 100}
    assert table.batch(taker, A, Z)[0] == {}
    assert table.batch(taker)[0] == {A: 10, Z: 100}


def test_rows_in_no_order_of_tenancies_have_one_turn() -> None:
    table, taker = Table(), TurnTaker(100, whole=True)
    table.waiting[WHOLE], table.held[WHOLE] = 300, 150
    assert table.batch(taker) == ({}, True)
    assert table.batch(taker)[0] == {WHOLE: 150}
    assert table.batch(taker) == ({}, False)
    table.now += 1
    table.held[WHOLE] = 0
    assert table.batch(taker)[0] == {WHOLE: 100}


@pytest.mark.parametrize("seed", range(20))
def test_every_row_that_can_be_stamped_is_stamped(seed: int) -> None:
    random = Random(seed)
    table, taker = Table(), TurnTaker(random.choice((1, 7, 100)))
    names = [A, Z, *(UUID(int=random.getrandbits(128)) for _ in range(10))]
    for _ in range(30):
        tenancy = random.choice(names)
        table.waiting[tenancy] += random.choice((1, 20, 300))
        table.held[tenancy] = random.choice((0, 0, 1, 150))
        table.batch(taker, *random.sample(names, random.choice((0, 0, 2))))
        table.now += random.random()
    table.held.clear()
    for _ in range(20_000):
        table.now += 0.01
        table.batch(taker)
        if not +table.waiting:
            return
    raise AssertionError(f"{table.waiting} are never stamped")
