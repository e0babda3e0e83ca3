"""When a loop ends."""

from __future__ import annotations

import signal
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from stackctl.sync.stop import Pause, Stop, WakeUpSignal

if TYPE_CHECKING:
    import pytest


def test_without_a_limit_only_a_signal_ends_it() -> None:
    now = [0.0]
    stop = Stop(clock=lambda: now[0])
    now[0] = 1e12
    assert not stop.requested
    stop.set()
    assert (stop.requested, stop.signalled, stop.reason) == (True, True, "signal")


def test_time_ends_it_and_a_signal_is_the_better_reason() -> None:
    now = [100.0]
    stop = Stop(timedelta(seconds=5), clock=lambda: now[0])
    now[0] = 104.999
    assert not stop.requested
    now[0] = 105.0
    assert (stop.requested, stop.signalled, stop.reason) == (True, False, "max-duration")
    stop.set()
    assert stop.reason == "signal"


def test_a_wait_ends_with_the_signal() -> None:
    stop = Stop()
    waiting = threading.Thread(target=stop.wait, args=(3600,))
    waiting.start()
    stop.set()
    waiting.join(10)
    assert not waiting.is_alive()


def test_a_wait_is_no_longer_than_the_time_that_is_left() -> None:
    now = [0.0]
    stop = Stop(timedelta(seconds=1), clock=lambda: now[0])
    assert (stop.time_left(0.5), stop.time_left(3600)) == (0.5, 1)
    now[0] = 2.0
    assert stop.time_left(3600) == 0
    stop.wait(3600)  # returns


def test_a_bell_ends_one_wait() -> None:
    wakeup = WakeUpSignal()
    wakeup.send()
    wakeup.send()
    assert wakeup.wait(3600)
    assert not wakeup.wait(0)


def test_the_stop_rings_every_bell_whenever_it_was_made() -> None:
    stop = Stop()
    before = stop.new_wakeup_signal()
    waiting = threading.Thread(target=stop.wait, args=(3600, before))
    waiting.start()
    stop.set()
    waiting.join(10)
    assert not waiting.is_alive()
    assert not stop.wait(3600, stop.new_wakeup_signal())


def test_a_bell_that_is_rung_is_told_from_the_stop() -> None:
    stop = Stop()
    wakeup = stop.new_wakeup_signal()
    wakeup.send()
    assert stop.wait(3600, wakeup)
    assert not stop.wait(0, wakeup)


def test_several_threads_and_a_second_wait_see_the_stop() -> None:
    stop = Stop()
    threads = [threading.Thread(target=stop.wait, args=(3600,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    stop.set()
    stop.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    stop.wait(3600)  # returns


def test_a_signal_handler_may_stop_the_thread_that_waits() -> None:
    """The handler runs inside the wait, in the same thread: nothing may be locked there."""
    stop = Stop()
    handler = signal.signal(signal.SIGALRM, lambda number, frame: stop.set())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        stop.wait(3600)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    assert stop.signalled


def test_the_wall_clock_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = Stop(timedelta(hours=1))
    now = time.time()
    for jump in (-86400, 86400):
        monkeypatch.setattr(time, "time", lambda jump=jump: now + jump)
        assert not stop.requested
        assert 3590 < stop.time_left(7200) <= 3600


def test_a_pause_waits_for_one_step_however_often_it_is_asked() -> None:
    stop = Stop()
    pause = Pause(stop)
    pause.wanted = True
    assert [pause.requested for _ in range(3)] == [False] * 3
    pause.note_step()
    assert [pause.requested for _ in range(2)] == [True] * 2
    other = Pause(stop)
    other.note_step()
    assert not other.requested, "nobody waits"
    stop.set()
    assert Pause(stop).requested
