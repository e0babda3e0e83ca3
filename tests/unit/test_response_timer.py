"""When a target counts as hung: only while somebody waits for it, and only after its patience."""

from __future__ import annotations

from stackctl.sync.targets.protocol import LONG_PATIENCE, PATIENCE, ResponseTimer


def test_a_target_that_nobody_waits_for_is_never_overdue() -> None:
    timer = ResponseTimer()
    timer.patience = -1.0
    timer.start()
    assert timer.is_overdue
    timer.stop()
    assert timer.seconds_waiting == 0.0


def test_a_target_at_work_for_less_than_its_patience_is_not_overdue() -> None:
    timer = ResponseTimer()
    with timer() as waiting:
        assert waiting.since is not None
        assert not waiting.is_overdue
        waiting.patience = -1.0
        assert waiting.is_overdue
    assert timer.since is None


def test_a_whole_table_may_take_longer() -> None:
    timer = ResponseTimer()
    with timer.allow_long_waits():
        assert timer.patience == LONG_PATIENCE > PATIENCE
    assert timer.patience == PATIENCE
