"""When a file that asks to be repeated never ends, and how far it says that it has come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stackctl.core.errors import AnswerNo
from stackctl.migrate.runner import repeated_passes
from stackctl.migrate.runner.repeated_passes import RepeatedPasses, RowChanges
from tests.migrations import write_files

if TYPE_CHECKING:
    from pathlib import Path

NONE, ONE = RowChanges(0, 0, 0), RowChanges(1, 0, 0)


@pytest.fixture
def passes(tmp_path: Path) -> RepeatedPasses:
    return RepeatedPasses(write_files(tmp_path, a="SELECT 1")[0])


def how_many(passes: RepeatedPasses, changes: RowChanges | None, remaining: int | None = None) -> int:
    """Passes until it is said to never end."""
    for number in range(1, 400):
        try:
            passes.add_pass(changes, remaining)
        except AnswerNo as error:
            assert (error.code, error.details["passes"]) == ("migration-never-ends", passes._passes)
            return number
    return 0


def test_so_many_passes_in_a_row_that_change_nothing(passes: RepeatedPasses) -> None:
    for _ in range(repeated_passes.IDLE_PASSES - 1):
        passes.add_pass(NONE, None)
    passes.add_pass(ONE, None)
    assert how_many(passes, NONE) == repeated_passes.IDLE_PASSES


def test_without_counted_rows_what_remains_tells(passes: RepeatedPasses) -> None:
    assert how_many(passes, None, None) == 0
    assert how_many(passes, None, 5) == repeated_passes.IDLE_PASSES + 1  # the first of them is news
    for remaining in range(3 * repeated_passes.IDLE_PASSES):
        assert passes.add_pass(None, remaining).rows is None


def test_the_same_rows_updated_for_ever(passes: RepeatedPasses) -> None:
    assert how_many(passes, RowChanges(11, 11, 100)) == repeated_passes.CHURN_PASSES
    assert how_many(passes, RowChanges(11, 0, 1_000)) == 0  # inserted; and there are more rows by now


def test_as_many_updates_as_are_sound(passes: RepeatedPasses) -> None:
    assert how_many(passes, RowChanges(10, 10, 100)) == repeated_passes.CHURN_PASSES + 1


def test_the_most_passes(passes: RepeatedPasses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated_passes, "MOST_PASSES", 7)
    assert how_many(passes, ONE) == 7


def test_what_a_pass_says(passes: RepeatedPasses) -> None:
    first, second = passes.add_pass(RowChanges(3, 1, 9), 8), passes.add_pass(RowChanges(4, 0, 0), 4)
    assert (first.rows, first.total, first.remaining) == (3, 3, 8)
    assert (second.rows, second.total, second.remaining) == (4, 7, 4)
    assert first.per_second > 0
    assert RowChanges(5, 4, 9).since(RowChanges(2, 3, 7)) == RowChanges(3, 1, 9)


def test_the_pause_doubles_while_nothing_changes(passes: RepeatedPasses) -> None:
    pauses = [passes.pause]
    for _ in range(repeated_passes.IDLE_PASSES - 1):
        passes.add_pass(NONE, None)
        pauses.append(passes.pause)
    assert pauses == [min(0.1 * 2**number, 5.0) for number in range(repeated_passes.IDLE_PASSES)]
    passes.add_pass(ONE, None)
    assert passes.pause == 0.1
